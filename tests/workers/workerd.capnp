# Runs probe.js under plain workerd, with the runtime's own ai binding over our server.
# The command line gives the server's address: --external-addr intaglio=<host:port>

using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "probe", worker = .probe),
    (name = "intaglio", external = (http = (
      injectRequestHeaders = [
        (name = "authorization", value = "Bearer the-token"),
        (name = "intaglio-account", value = "workers"),
      ],
    ))),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "probe")],
);

const probe :Workerd.Worker = (
  compatibilityDate = "2026-10-01",
  modules = [(name = "probe.js", esModule = embed "probe.js")],
  bindings = [
    (name = "AI", wrapped = (
      moduleName = "cloudflare-internal:ai-api",
      innerBindings = [(name = "fetcher", service = "intaglio")],
    )),
  ],
);
