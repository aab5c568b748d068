// The module `_cpu`: the classes and functions of the runtime under their Python names. Only csrc/python knows Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "python/adapters.h"
#include "python/arrays.h"
#include "python/device_methods.h"
#include "python/matrix.h"
#include "python/plans.h"
#include "python/rounding.h"
#include "runtime/device.h"
#include "runtime/plans.h"

NB_MODULE(_cpu, m) {
    using namespace intaglio;
    nb::class_<PackedMatrix>(m, "PackedMatrix");
    m.def("pack", &pack, nb::arg("format"), nb::arg("out"), nb::arg("in"), nb::arg("values"), nb::arg("scales") = nb::none(),
          nb::arg("minima") = nb::none());
    nb::class_<Pages>(m, "Pages").def(nb::new_(&touched_pages), nb::arg("size"));
    nb::class_<AdapterWeights>(m, "AdapterWeights")
        .def(nb::new_(&pack_adapter), nb::arg("projections"), nb::arg("spare") = nb::none())
        .def_static("attach", &attach_adapter, nb::arg("shapes"), nb::arg("values"), nb::arg("vectors"),
                    nb::arg("spare") = nb::none())
        .def_prop_ro("size", &AdapterWeights::bytes)
        .def_prop_ro("shapes", &adapter_shapes)
        .def_prop_ro("values",
                     [](const AdapterWeights& weights) {
                         return nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>(weights.values(), {(size_t)weights.bytes()},
                                                                                   nb::find(weights));
                     })
        .def_prop_ro("vectors", [](const AdapterWeights& weights) {
            return nb::ndarray<nb::numpy, const float, nb::ndim<1>>(weights.vectors(), {(size_t)weights.floats()},
                                                                    nb::find(weights));
        });
    nb::class_<LoraPlan>(m, "LoraPlan").def("__init__", [](LoraPlan* self, const nb::list& segments) {
        new (self) LoraPlan(read_segments(segments));
    });
    nb::class_<AttentionPlan>(m, "AttentionPlan")
        .def("__init__", [](AttentionPlan* self, const nb::list& rows,
                            int64_t block_size) { new (self) AttentionPlan(read_sequences(rows), block_size); })
        .def_ro("highest_position", &AttentionPlan::highest_position);
    m.def("search_affine", &search_affine, nb::arg("values"), nb::arg("weights").none(), nb::arg("most"),
          nb::arg("whole").noconvert(), nb::arg("scales").noconvert(), nb::arg("minima").noconvert());
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
        // noconvert: an array that is written to must be the caller's own memory, never a converted copy.
        .def("linears", &methods::linears, nb::arg("x"), nb::arg("weights"), nb::arg("plan").none(), nb::arg("projection"),
             nb::arg("outputs").noconvert())
        .def("embed", &methods::embed, nb::arg("table"), nb::arg("ids"), nb::arg("scale"), nb::arg("plan").none(),
             nb::arg("projection"), nb::arg("out").noconvert())
        .def("gated_linear", &methods::gated_linear, nb::arg("x"), nb::arg("gate"), nb::arg("up"), nb::arg("plan").none(),
             nb::arg("projection"), nb::arg("out").noconvert())
        .def("rms_norm", &methods::rms_norm, nb::arg("x"), nb::arg("weight"), nb::arg("eps"), nb::arg("plan").none(),
             nb::arg("projection"), nb::arg("out").noconvert())
        .def("add_projection", &methods::add_projection, nb::arg("x"), nb::arg("y"), nb::arg("matrix"), nb::arg("plan").none(),
             nb::arg("projection"), nb::arg("post").none(), nb::arg("weight"), nb::arg("eps"), nb::arg("sum").noconvert(),
             nb::arg("normed").noconvert())
        .def("self_attention", &methods::self_attention, nb::arg("x"), nb::arg("q"), nb::arg("k"), nb::arg("v"),
             nb::arg("lora").none(), nb::arg("projection"), nb::arg("q_norm").none(), nb::arg("k_norm").none(), nb::arg("eps"),
             nb::arg("angles"), nb::arg("keys").noconvert(), nb::arg("values").noconvert(),
             nb::arg("key_scales").noconvert().none(), nb::arg("value_scales").noconvert().none(), nb::arg("layer"),
             nb::arg("plan"), nb::arg("scale"), nb::arg("window"), nb::arg("softcap"), nb::arg("out").noconvert())
        .def("softcap", &methods::softcap, nb::arg("x").noconvert(), nb::arg("cap"))
        .def("sample", &methods::sample);
}
