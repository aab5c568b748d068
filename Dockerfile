# Intaglio as an image: docker build -t intaglio . && docker run -p 8080:8080 -v intaglio-data:/data intaglio
#
# The first stage compiles the kernels into a wheel and installs it with the default model; the second one has no compiler,
# runs as a user without rights, and needs to write to /data and /tmp only, so its root may be read-only. Works for amd64 and arm64.
ARG BASE=docker.io/library/python:3.12-slim-bookworm

FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/intaglio
WORKDIR /source
# The locked packages first: a change of the sources does not install them again.
COPY requirements/serve.txt requirements/
RUN /opt/intaglio/bin/python -m pip install --no-cache-dir --no-deps --require-hashes -r requirements/serve.txt
COPY pyproject.toml CMakeLists.txt README.md LICENSE NOTICE ./
COPY csrc csrc
COPY src src
RUN /opt/intaglio/bin/python -m pip install --no-cache-dir --no-deps .

FROM ${BASE}
COPY --from=build /opt/intaglio /opt/intaglio
RUN groupadd --gid 10001 intaglio && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data intaglio \
  && mkdir /data && chown intaglio:intaglio /data
# Finetunes, batches and caches. Everything else stays as it was built.
VOLUME /data
ENV PATH=/opt/intaglio/bin:$PATH INTAGLIO_DATA_DIR=/data INTAGLIO_CACHE_DIR=/data/cache INTAGLIO_HOST=0.0.0.0 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
ENTRYPOINT ["intaglio"]
CMD ["serve"]
