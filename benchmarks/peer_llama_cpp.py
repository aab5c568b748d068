"""llama.cpp, built for this machine from the source package of llama-cpp-python, on the same GGUF files.

One prompt or many without adapters run in llama-batched-bench (forwards only, no sampling, no HTTP) and llama-bench.
Adapters need llama-server: each request names its adapter, and slots with different adapters are not batched together.
Stop tokens and prompt cache are off, and sampling is greedy.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.models import Home, run_logged
from benchmarks.worker import Job, Runner, Sample, serve
from benchmarks.workloads import NUM_ADAPTERS, Workload

VERSION = "0.3.36"
TOOLS = ("llama-server", "llama-bench", "llama-batched-bench")
PORTS = {"270m": 18_089, "2b": 18_090, "7b": 18_091}  # several may exist at a time, all but one of them stopped


def python(_home: Path) -> Path:
    return Path(sys.executable)  # the tools are programs; this file only starts them


def refuses(_workload: Workload) -> str | None:
    return None


def installed(home: Path) -> bool:
    return all((_bin(home) / tool).is_file() for tool in TOOLS)


def version(home: Path) -> str:
    source = json.loads((_folder(home) / "version.json").read_text()) if installed(home) else {}
    return f"llama-cpp-python {source.get('package', VERSION)}, ggml native"


def install(home: Path) -> None:
    """About 12 minutes on two cores."""
    folder, log = _folder(home), home / "logs" / "install-llama_cpp.log"
    pip = str(folder / "venv" / "bin" / "pip")
    run_logged([sys.executable, "-m", "venv", str(folder / "venv")], log)
    run_logged([pip, "install", "-q", "scikit-build-core", "cmake", "ninja"], log)
    package = f"llama-cpp-python=={VERSION}"
    options = ["--no-deps", "--no-binary", "llama-cpp-python", "--no-build-isolation", "-d", str(folder)]
    run_logged([pip, "download", *options, package], log)
    run_logged(["tar", "xzf", str(folder / f"llama_cpp_python-{VERSION}.tar.gz"), "-C", str(folder)], log)
    source = folder / f"llama_cpp_python-{VERSION}" / "vendor" / "llama.cpp"
    patch_amx(source)
    off = [f"-D{name}=OFF" for name in ("LLAMA_CURL", "LLAMA_OPENSSL", "LLAMA_BUILD_TESTS")]
    cmake, ninja = (str(folder / "venv" / "bin" / tool) for tool in ("cmake", "ninja"))
    flags = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", f"-DCMAKE_MAKE_PROGRAM={ninja}", *off]
    run_logged([cmake, "-G", "Ninja", "-S", str(source), "-B", str(folder / "build"), *flags], log)
    run_logged([ninja, "-C", str(folder / "build"), *TOOLS], log)
    (folder / "version.json").write_text(json.dumps({"package": VERSION}))


def patch_amx(source: Path) -> None:
    """Work around a bug of GCC, which declares that `_tile_loadconfig` reads only 8 bytes.

    GCC 12 drops the stores to the other 56 bytes, and llama.cpp ends with SIGSEGV at its first product on a machine
    with AMX. A compiler barrier before the call keeps the stores; nothing else changes.
    """
    file = source / "ggml" / "src" / "ggml-cpu" / "amx" / "mmq.cpp"
    text = file.read_text()
    call = "    _tile_loadconfig(&tc);"
    barrier = '    asm volatile("" : : "r"(&tc) : "memory");\n'
    if barrier not in text:
        file.write_text(text.replace(call, barrier + call))


def _folder(home: Path) -> Path:
    return home / "llama_cpp"


def _bin(home: Path) -> Path:
    return _folder(home) / "build" / "bin"


class LlamaCpp:
    """Runs the tool that a workload needs. The server is started once and keeps running."""

    def __init__(self, job: Job) -> None:
        self._home, self._job = Home(Path(job.home)), job
        self._model = str(self._home.model(job.model))
        self._threads = ["-t", str(job.threads), "-tb", str(job.threads)]
        self._server: subprocess.Popen[bytes] | None = None
        self._adapters: list[Path] = []  # those of the running server
        self._url = f"http://127.0.0.1:{PORTS[job.model]}"

    def run(self, workload: Workload, repeat: int) -> Sample:
        if workload.adapters:
            return self._serve(workload, repeat)
        if workload.figure == "prefill":
            return self._prefill(workload)
        return self._batched(workload)

    def close(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait()
            self._server = None

    def _tool(self, name: str) -> str:
        return str(_bin(self._home.path) / name)

    def _prefill(self, workload: Workload) -> Sample:
        command = [self._tool("llama-bench"), "-m", self._model, "-p", str(workload.prompt_tokens), "-n", "0"]
        (row,) = json.loads(_output([*command, "-r", "1", "-o", "json", *self._threads[:2]]))
        return Sample(prefill=row["avg_ts"])

    def _batched(self, workload: Workload) -> Sample:
        prompt, output, streams = workload.prompt_tokens, workload.output_tokens, workload.streams
        command = [self._tool("llama-batched-bench"), "-m", self._model, "-npp", str(prompt), "-ntg", str(output)]
        command += ["-npl", str(streams), "-c", str(streams * (prompt + output) + 256), "-b", "2048", "-ub", "512"]
        lines = _output([*command, "--output-format", "jsonl", *self._threads]).splitlines()
        (row,) = [json.loads(line) for line in lines if line.startswith("{")]
        tokens = streams * output
        return Sample(decode=row["speed_tg"], prefill=row["speed_pp"], output=tokens / (row["t_pp"] + row["t_tg"]))

    def _serve(self, workload: Workload, repeat: int) -> Sample:
        self._start_server(workload)
        begin = time.perf_counter()
        with ThreadPoolExecutor(workload.streams) as pool:
            jobs = [
                pool.submit(_complete, self._url, prompt, workload.output_tokens, workload.adapter_of(stream))
                for stream, prompt in enumerate(workload.prompts(repeat))
            ]
            counts = [job.result() for job in jobs]
        if counts != [workload.output_tokens] * workload.streams:
            raise RuntimeError(f"llama-server gave {counts} tokens")
        return Sample(output=sum(counts) / (time.perf_counter() - begin))

    def _start_server(self, workload: Workload) -> None:
        adapters = self._home.lora_gguf(workload.model, workload.rank, workload.projections)
        if self._server is not None and adapters == self._adapters:
            return
        self.close()
        self._adapters = adapters
        slots = workload.streams if workload.model == "7b" else 16
        context = slots * 256
        command = [
            self._tool("llama-server"),
            "-m",
            self._model,
            "--port",
            str(PORTS[workload.model]),
            "-np",
            str(slots),
        ]
        command += [
            "-c",
            str(context),
            "-b",
            "2048",
            "-ub",
            "512",
            "--lora",
            ",".join(map(str, adapters)),
            "--lora-init-without-apply",
        ]
        self._server = subprocess.Popen([*command, *self._threads], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not _healthy(self._url):
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("llama-server did not start; see the log")
            time.sleep(0.2)


def _output(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _complete(url: str, prompt: list[int], output_tokens: int, adapter: int | None) -> int:
    """Run one request; return the number of generated tokens."""
    body: dict[str, Any] = {
        "prompt": prompt,
        "n_predict": output_tokens,
        "ignore_eos": True,
        "cache_prompt": False,
        "temperature": 0,
        "samplers": ["temperature"],
        "lora": [{"id": i, "scale": float(i == adapter)} for i in range(NUM_ADAPTERS)],
    }
    data = json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/completion", data, headers)
    with urllib.request.urlopen(request, timeout=600) as response:
        return int(json.load(response)["tokens_predicted"])


def open_runner(job: Job) -> Runner:
    return LlamaCpp(job)


if __name__ == "__main__":
    serve(open_runner)
