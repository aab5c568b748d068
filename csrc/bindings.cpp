// The module: what of the kernels Python sees, and by which names. With device.h, plans.h and python_*.h this is all that knows
// Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "device.h"
#include "kernels.h"
#include "plans.h"
#include "python_adapters.h"
#include "python_matrix.h"
#include "python_types.h"

NB_MODULE(_cpu, m) {
    using namespace intaglio;
    nb::class_<PackedMatrix>(m, "PackedMatrix");
    m.def("pack", &pack, nb::arg("format"), nb::arg("out"), nb::arg("in"), nb::arg("values"),
          nb::arg("scales") = nb::none(), nb::arg("minima") = nb::none());
    nb::class_<Pages>(m, "Pages").def(nb::new_(&touched_pages), nb::arg("size"));
    nb::class_<AdapterWeights>(m, "AdapterWeights")
        .def(nb::new_(&pack_adapter), nb::arg("calls"), nb::arg("spare") = nb::none())
        .def_static("attach", &attach_adapter, nb::arg("shapes"), nb::arg("values"), nb::arg("vectors"),
                    nb::arg("spare") = nb::none())
        .def_prop_ro("size", &AdapterWeights::bytes)
        .def_prop_ro("shapes", &adapter_shapes)
        .def_prop_ro("values", [](const AdapterWeights& weights) {
            return nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>(weights.values(), {(size_t)weights.bytes()}, nb::find(weights));
        })
        .def_prop_ro("vectors", [](const AdapterWeights& weights) {
            return nb::ndarray<nb::numpy, const float, nb::ndim<1>>(weights.vectors(), {(size_t)weights.floats()}, nb::find(weights));
        });
    nb::class_<LoraPlan>(m, "LoraPlan").def(nb::init<nb::list>());
    nb::class_<AttentionPlan>(m, "AttentionPlan")
        .def(nb::init<nb::list, int64_t>())
        .def_ro("highest_position", &AttentionPlan::highest_position);
    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const char* name : {"amx", "avx512vnni", "avx2", "neon", "plain"})
            if (find_kernels(name)) names.emplace_back(name);
        return names;
    });
    nb::class_<Device>(m, "Device")
        .def(nb::init<int, std::optional<std::string>>(), nb::arg("threads"), nb::arg("isa") = nb::none())
        .def_prop_ro("isa", &Device::name)
        .def_prop_ro("threads", &Device::threads)
        // noconvert: what is written to must be the caller's own memory, never a copy made to fit.
        .def("linears", &Device::linears, nb::arg("x"), nb::arg("weights"), nb::arg("plan").none(), nb::arg("call"),
             nb::arg("outputs").noconvert())
        .def("embed", &Device::embed, nb::arg("table"), nb::arg("ids"), nb::arg("scale"), nb::arg("plan").none(),
             nb::arg("call"), nb::arg("out").noconvert())
        .def("gated_linear", &Device::gated_linear, nb::arg("x"), nb::arg("gate"), nb::arg("up"), nb::arg("plan").none(),
             nb::arg("call"), nb::arg("out").noconvert())
        .def("rms_norm", &Device::rms_norm, nb::arg("x"), nb::arg("weight"), nb::arg("eps"), nb::arg("plan").none(),
             nb::arg("call"), nb::arg("out").noconvert())
        .def("add_projection", &Device::add_projection, nb::arg("x"), nb::arg("y"), nb::arg("matrix"),
             nb::arg("plan").none(), nb::arg("call"), nb::arg("post").none(), nb::arg("weight"), nb::arg("eps"),
             nb::arg("sum").noconvert(), nb::arg("normed").noconvert())
        .def("self_attention", &Device::self_attention, nb::arg("x"), nb::arg("q"), nb::arg("k"), nb::arg("v"),
             nb::arg("lora").none(), nb::arg("call"), nb::arg("q_norm").none(), nb::arg("k_norm").none(),
             nb::arg("eps"), nb::arg("angles"), nb::arg("keys").noconvert(), nb::arg("values").noconvert(),
             nb::arg("layer"), nb::arg("plan"), nb::arg("scale"), nb::arg("window"), nb::arg("softcap"),
             nb::arg("out").noconvert())
        .def("softcap", &Device::softcap, nb::arg("x").noconvert(), nb::arg("cap"))
        .def("sample", &Device::sample);
}
