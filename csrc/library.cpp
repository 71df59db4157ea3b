// The operators, as torch.ops.detector_ops sees them. Kernels register themselves beside their code.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(detector_ops, library) {
  library.def("mish_forward(Tensor x) -> Tensor");
  library.def("mish_backward(Tensor grad, Tensor x) -> Tensor");
  library.def("mish_out(Tensor x, Tensor(a!) y) -> ()");
  library.def("mish_(Tensor(a!) x) -> ()");

  // BatchNorm + activation, split where ranks that share statistics exchange them.
  library.def("bn_stats(Tensor x) -> (Tensor mean, Tensor var)");
  library.def(
      "bn_act_apply(Tensor x, Tensor mean, Tensor rstd, Tensor weight, Tensor bias, "
      "int activation, float parameter) -> Tensor");
  library.def(
      "bn_act_backward_reduce(Tensor grad, Tensor x, Tensor mean, Tensor rstd, Tensor weight, "
      "Tensor bias, int activation, float parameter, Tensor(a!) grad_x) "
      "-> (Tensor sum_dy, Tensor sum_dy_xhat)");
  library.def(
      "bn_act_backward_apply_(Tensor grad, Tensor x, Tensor mean, Tensor rstd, Tensor weight, "
      "Tensor bias, int activation, float parameter, Tensor sum_dy, Tensor sum_dy_xhat, int count, "
      "Tensor(a!) grad_x) -> ()");

  library.def("conv3x3_grad_weight(Tensor grad, Tensor x, int stride) -> Tensor");
}
