// What a student is trained on, by comparison with its teacher or the text. One file under
// distill/losses/ defines `std::unique_ptr<Loss> slmc::loss_<file>()`; the build finds it. A loss
// is plain arithmetic over one position: the fused kernel (loss_kernel.h) turns what a loss over
// distributions gives into the gradient of the logits, LibTorch's lanes carry on that of a loss
// over hidden states.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace slmc {

/// What shapes a loss: a number, as in "jsd(beta=0.3)", or a text.
struct LossParameter {
  std::string_view name;
  double* value = nullptr;
  double min = 0.0, max = 0.0;
  std::string* text = nullptr;  ///< In place of `value`.
};

class Loss {
 public:
  virtual ~Loss() = default;
  virtual std::string_view name() const = 0;
  virtual std::string_view summary() const = 0;
  virtual bool needs_teacher() const = 0;
  /// Where its parameters are kept; set before the first row().
  virtual std::vector<LossParameter> parameters() { return {}; }
};

/// One position, arrays of `vocab` floats at the loss's temperature. p: teacher, q: student.
struct LossRow {
  int64_t vocab = 0;
  const float* p = nullptr;  ///< Null unless needs_teacher().
  const float* log_p = nullptr;
  const float* q = nullptr;
  const float* log_q = nullptr;
  int32_t label = 0;
};

class DistributionLoss : public Loss {
 public:
  /// True if tokens that the teacher finds unlikely count for much: a teacher cache keeps only
  /// their sum.
  virtual bool weighs_unlikely() const { return false; }
  /// The position's loss in nats. `gradient` [vocab] gets q * dL/dq, that is dL/d(log q) with each
  /// log q taken as free: unlike dL/dq it is finite where q underflows. The kernel makes dL/dz = g
  /// - q * sum(g) of it. Called by several threads at once.
  virtual double row(const LossRow& row, float* gradient) const = 0;
};

/// What two blocks give at one position, arrays of `width` floats.
struct HiddenRow {
  int64_t width = 0;
  const float* teacher = nullptr;
  const float* student = nullptr;  ///< Through its projection, where the widths differ.
};

/// Compares what chosen blocks give. Averaged over the pairs of blocks.
class HiddenLoss : public Loss {
 public:
  bool needs_teacher() const final { return true; }
  std::vector<LossParameter> parameters() override {
    return {{.name = "layers", .text = &layers_}};
  }
  /// "S:T+S:T": blocks of the student and those of the teacher they go with, from 0; empty: each of
  /// the student's with the teacher's at the same part of the depth.
  const std::string& layers() const { return layers_; }
  /// The position's loss; `gradient` [width] gets its derivative by `student`. Called by several
  /// threads at once.
  virtual double row(const HiddenRow& row, float* gradient) const = 0;

 private:
  std::string layers_;
};

const std::vector<std::unique_ptr<Loss> (*)()>& loss_table();
/// `text`: a name, with parameters in parentheses where wanted: "forward_kl", "jsd(beta=0.3)".
/// Throws Error(kUsage) naming the nearest known loss or parameter, or a value out of range.
std::unique_ptr<Loss> loss_by_name(std::string_view text);
std::vector<std::string> loss_names();
/// One line for help: names, parameters with their defaults.
std::string loss_list();
/// For research code: adds a loss under its own name.
void add_loss(std::unique_ptr<Loss> (*create)());

}  // namespace slmc
