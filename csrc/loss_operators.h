// The losses of rows of logits, apart from where they run.
//
// `Device` runs kernels:
//   static constexpr bool kReadsLabels, whether labels may be looked at before the launch
//   void losses(const Tensor& logits, const LossJob&)
#pragma once

#include "losses.h"
#include "tensors.h"

namespace sat_kernels {

// As float they are exact.
constexpr int64_t kMostClasses = 1 << 24;

inline double largest_of(DType dtype) {
  switch (dtype) {
    case DType::float64: return FloatBits<double>::kLargest;
    case DType::bfloat16: return 0x1.fep127;
    case DType::float16: return 65504;
    default: return FloatBits<float>::kLargest;
  }
}

template <class Device> Tensor checked_labels(const char* name, const Tensor& labels, const Tensor& logits) {
  STD_TORCH_CHECK(labels.scalar_type() == ScalarType::Long && labels.sizes().size() == 1 &&
                      labels.sizes()[0] == logits.sizes()[0] && labels.device() == logits.device(),
                  name, ": expected int64, one for each row of logits, on their device");
  const Tensor found = labels.is_contiguous() ? labels : torch::stable::contiguous(labels);
  if constexpr (Device::kReadsLabels) {
    const int64_t* values = static_cast<const int64_t*>(found.const_data_ptr());
    const int64_t classes = logits.sizes()[1];
    for (int64_t i = 0; i < found.numel(); ++i) {
      STD_TORCH_CHECK(values[i] >= 0 && values[i] < classes, name, "[", i, "] is ", values[i], ": expected 0 <= ", name,
                      " < ", classes);
    }
  }
  return found;
}

inline Tensor with_rows_together(const Tensor& logits) {
  return logits.sizes()[1] == 1 || logits.strides()[1] == 1 ? logits : torch::stable::contiguous(logits);
}

using LossOutputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class Device>
LossOutputs attack_loss(Tensor logits, Tensor y, std::optional<Tensor> targets, std::optional<Tensor> clean_logits,
                        int64_t loss, double beta, bool grad, bool clean_grad) {
  STD_TORCH_CHECK(loss >= 0 && loss < int64_t(Loss::count), "loss is ", loss, ": expected 0 to ", int(Loss::count) - 1);
  STD_TORCH_CHECK(logits.sizes().size() == 2, "logits: expected (B, C)");
  LossJob job{};
  job.loss = Loss(loss);
  job.rows = logits.sizes()[0];
  job.classes = logits.sizes()[1];
  const bool compared = family_of(job.loss) == LossFamily::divergence, targeted = job.loss == Loss::dlr_targeted;
  const int64_t least = targeted ? 4 : job.loss == Loss::dlr ? 3 : 2;
  STD_TORCH_CHECK(job.classes >= least && job.classes <= kMostClasses, "logits have ", job.classes,
                  " classes: expected ", least, " to ", kMostClasses);
  STD_TORCH_CHECK(compared == clean_logits.has_value(), "clean_logits: expected for kl and mart only");
  STD_TORCH_CHECK(targeted == targets.has_value(), "targets: expected for dlr_targeted only");
  STD_TORCH_CHECK(compared || !clean_grad, "clean_grad: expected with clean_logits only");
  const DType dtype = dtype_of(logits);
  const Tensor labels = checked_labels<Device>("y", y, logits);
  const Tensor goals = targeted ? checked_labels<Device>("targets", *targets, logits) : labels;
  if (compared) {
    check_like("clean_logits", *clean_logits, "logits", logits);
    STD_TORCH_CHECK(clean_logits->scalar_type() == logits.scalar_type(),
                    "clean_logits differ in dtype from logits: expected the same");
  }
  const Tensor rows = with_rows_together(logits), clean = compared ? with_rows_together(*clean_logits) : rows;
  const Tensor losses = contiguous_empty(logits, {job.rows}, opmath_of(logits));
  const Tensor margins = contiguous_empty(logits, {job.rows}, opmath_of(logits));
  const Tensor correct = contiguous_empty(logits, {job.rows}, ScalarType::Bool);
  const auto gradient = [&](bool wanted) {
    return wanted ? contiguous_empty(logits, {job.rows, job.classes}, logits.scalar_type())
                  : contiguous_empty(logits, {0}, logits.scalar_type());
  };
  const Tensor to = gradient(grad), clean_to = gradient(clean_grad);
  job.logits = rows.const_data_ptr();
  job.row_stride = rows.strides()[0];
  if (compared) job.clean = clean.const_data_ptr();
  job.clean_row_stride = clean.strides()[0];
  job.y = static_cast<const int64_t*>(labels.const_data_ptr());
  if (targeted) job.targets = static_cast<const int64_t*>(goals.const_data_ptr());
  job.losses = losses.mutable_data_ptr();
  job.margins = margins.mutable_data_ptr();
  job.correct = static_cast<bool*>(correct.mutable_data_ptr());
  if (grad) job.grad = to.mutable_data_ptr();
  if (clean_grad) job.clean_grad = clean_to.mutable_data_ptr();
  job.beta = beta;
  job.largest = largest_of(dtype);
  if (job.rows > 0) Device::losses(rows, job);
  return {losses, correct, margins, to, clean_to};
}

// The registrations for one device.
template <class Device, class Library> void register_loss_operators(Library& m) {
  m.impl("attack_loss", TORCH_BOX((&attack_loss<Device>)));
}

}  // namespace sat_kernels
