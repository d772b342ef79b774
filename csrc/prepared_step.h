// What the raw operators of all steps have in common: from their arguments to the job of a kernel.
#pragma once

#include "samples.h"

namespace sat_kernels {

// What every step is given. eps, alpha: used where there is no eps_of, alpha_of, tensors of (B or 1, C or 1) numbers
// (C: dimension 1 of x_adv, or 1 if there is none) in x_adv's dtype, any strides. mask: of x_adv's shape. active: (B,).
// mean, std: float32, (C,).
struct StepArguments {
  OptionalTensor grad;
  Tensor x;
  double eps, alpha;
  OptionalTensor eps_of, alpha_of;
  double clip_min, clip_max;
  OptionalTensor mask, active, out, mean, std;
};

// A step's job over memory as the kernels take it, and the tensors that it points into.
class PreparedStep {
 public:
  AttackStep job{};
  DType grad = DType::float32;  // its number type

  // as_a_batch: with samples one after the other, as all steps need that know samples or channels; else one sample.
  // grads_of_x: a gradient that has more bits than x_adv, or x_adv float64 and the gradient fewer, is converted first.
  PreparedStep(const Tensor& x_adv, const StepArguments& given, bool as_a_batch = true, bool grads_of_x = true)
      : x_adv_(x_adv) {
    STD_TORCH_CHECK(x_adv.scalar_type() == ScalarType::Float || x_adv.scalar_type() == ScalarType::Double,
                    "x_adv: expected float32 or float64");
    check_like("x", given.x, "x_adv", x_adv);
    STD_TORCH_CHECK(given.x.scalar_type() == x_adv.scalar_type(), "x differs in dtype from x_adv: expected the same");
    target_ = dense(x_adv);
    const int64_t size = x_adv.numel();
    samples_ = samples_of(x_adv);
    channels_ = channels_of(x_adv);
    if (size > 0) as_a_batch ? lay_out_samples(given.out.has_value()) : lay_out_as_one();
    job.lowest = given.clip_min;
    job.highest = given.clip_max;
    job.eps = size_of("eps_of", given.eps, given.eps_of, x_adv.scalar_type());
    job.alpha = size_of("alpha_of", given.alpha, given.alpha_of, x_adv.scalar_type());
    if (given.mask) {
      check_like("mask", *given.mask, "x_adv", x_adv);
      STD_TORCH_CHECK(given.mask->scalar_type() == ScalarType::Bool, "mask: expected bool");
    }
    if (given.active) check_vector("active", *given.active, samples_, ScalarType::Bool);
    if (given.grad) check_like("grad", *given.grad, "x_adv", x_adv);
    grad = dtype_of(x_adv);
    if (size == 0) return;
    job.x_adv = target_.mutable_data_ptr();
    job.x = as_target(given.x, given.x.scalar_type());
    if (given.grad) {
      const DType found = dtype_of(*given.grad), own = dtype_of(x_adv);
      const bool converted = grads_of_x && (own == DType::float64) != (found == DType::float64);
      grad = converted ? own : found;
      job.grad = as_target(*given.grad, converted ? x_adv.scalar_type() : given.grad->scalar_type());
    }
    if (given.mask) job.mask = static_cast<const bool*>(as_target(*given.mask, ScalarType::Bool));
    if (given.active) job.active = static_cast<const bool*>(given.active->const_data_ptr());
    if (given.out) write_out(*given.out, given.mean, given.std);
  }

  // Nothing to do.
  bool empty() const { return target_.numel() == 0; }
  // x_adv, or a copy of it in a layout that the kernels take.
  const Tensor& target() const { return target_; }

  // One number for all, or one per sample or channel.
  Size size_of(const char* name, double number, const OptionalTensor& of, ScalarType dtype) {
    if (of) kept_.push_back(*of);
    return size_for(x_adv_, name, number, of, dtype);
  }

  // The memory of a tensor like x_adv, which the kernel changes, too.
  void* changed(const char* name, const Tensor& t) {
    check_like(name, t, "x_adv", x_adv_);
    STD_TORCH_CHECK(t.scalar_type() == x_adv_.scalar_type(), name, " differs in dtype from x_adv: expected the same");
    if (empty()) return nullptr;
    const Tensor copy = laid_out_as(target_, t);
    return written_through(copy, t);
  }

  // Runs a kernel, unless there is nothing to do, and puts results that went to copies where they belong.
  void run(void (*kernel)(const PreparedStep&)) {
    if (empty()) return;
    kernel(*this);
    if (target_.get() != x_adv_.get()) torch::stable::copy_(x_adv_, target_);
    for (auto& [wanted, copy] : copies_) torch::stable::copy_(wanted, copy);
  }

 private:
  void lay_out_as_one() {
    job.samples = job.channels = 1;
    job.sample_size = job.inner = target_.numel();
  }

  void lay_out_samples(bool channels_outside) {
    const SampleLayout layout = sat_kernels::lay_out_samples(target_, channels_outside);
    job.samples = layout.samples;
    job.sample_size = layout.sample_size;
    job.channels = layout.channels;
    job.inner = layout.inner;
  }

  void check_vector(const char* name, const Tensor& t, int64_t size, ScalarType dtype) {
    STD_TORCH_CHECK(t.sizes().size() == 1 && t.numel() == size && t.is_contiguous() && t.scalar_type() == dtype &&
                        t.device() == x_adv_.device(),
                    name, ": expected ", size, " contiguous numbers of the right dtype on x_adv's device");
    kept_.push_back(t);
  }

  const void* as_target(const Tensor& t, ScalarType dtype) {
    kept_.push_back(laid_out_as(target_, t, dtype));
    return kept_.back().const_data_ptr();
  }

  void* written_through(const Tensor& copy, const Tensor& wanted) {
    kept_.push_back(copy);
    if (copy.get() != wanted.get()) copies_.emplace_back(wanted, copy);
    return copy.mutable_data_ptr();
  }

  void write_out(const Tensor& out, const OptionalTensor& mean, const OptionalTensor& std) {
    check_like("out", out, "x_adv", x_adv_);
    NetworkInput& to = job.out;
    to.dtype = dtype_of(out);
    STD_TORCH_CHECK(to.dtype != DType::float64, "out: expected float32, bfloat16 or float16");
    const bool direct = set_strides(out);
    const Tensor copy = direct ? out : laid_out_as(target_, out);  // with what samples keep that are not active
    if (!direct) set_strides(copy);
    to.to = written_through(copy, out);
    if (mean) {
      check_vector("mean", *mean, channels_, ScalarType::Float);
      to.mean = static_cast<const float*>(mean->const_data_ptr());
    }
    if (std) {
      check_vector("std", *std, channels_, ScalarType::Float);
      to.deviation = static_cast<const float*>(std->const_data_ptr());
    }
  }

  // Whether one stride steps through the places of `out`, in the order in which the target's lie in memory: those of
  // dimensions 2 and on, of which the target's memory goes through the one with the smallest stride first.
  bool set_strides(const Tensor& out) {
    const auto sizes = target_.sizes(), strides = target_.strides(), to = out.strides();
    std::vector<std::array<int64_t, 3>> places;  // (stride of the target, size, stride of out)
    for (size_t d = 2; d < sizes.size(); ++d) {
      if (sizes[d] != 1) places.push_back({strides[d], sizes[d], to[d]});
    }
    std::sort(places.begin(), places.end());
    int64_t expected = places.empty() ? 0 : places[0][2];
    job.out.per_sample = samples_ > 1 ? to[0] : 0;
    job.out.per_channel = channels_ > 1 ? to[1] : 0;
    job.out.per_place = expected;
    for (const auto& [stride, size, step] : places) {
      if (step != expected) return false;
      expected *= size;
    }
    return true;
  }

  Tensor x_adv_, target_;
  int64_t samples_, channels_;
  std::vector<Tensor> kept_;
  std::vector<std::pair<Tensor, Tensor>> copies_;  // (where results belong, where they are)
};

// For kernels that find an element's channel by 32-bit numbers.
inline void check_sample_size(const AttackStep& job) {
  const bool by_channel = job.eps.per_channel != 0 || job.alpha.per_channel != 0 || job.out.to != nullptr;
  STD_TORCH_CHECK(!by_channel || job.sample_size <= 0xffffffff, "x_adv: samples have ", job.sample_size,
                  " elements: expected at most 2^32 - 1 with numbers per channel or out");
}

}  // namespace sat_kernels
