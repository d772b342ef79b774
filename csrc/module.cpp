// The extension module: importing it registers the operators; build_info() tells what was built.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() = "Operators of sat_kernels, registered as torch.ops.sat_kernels";
  m.def("build_info", [] {
    py::dict info;
    info["torch"] = SK_TORCH_VERSION;
    info["cpu_capability"] = sat_kernels::cpu::kernels().instruction_set;
#ifdef SK_CUDA_VERSION
    info["cuda"] = SK_CUDA_VERSION;
    info["cuda_archs"] = py::str(SK_CUDA_ARCHS).attr("split")(";");
#else
    info["cuda"] = py::none();
    info["cuda_archs"] = py::list();
#endif
    return info;
  });
}
