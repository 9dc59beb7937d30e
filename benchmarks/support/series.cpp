#include "support/series.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <utility>

namespace bench {
namespace {

/// Quantiles of the same samples.
class Sorted {
 public:
  explicit Sorted(std::vector<double> samples) : samples_(std::move(samples)) {
    if (samples_.empty()) throw std::logic_error("quantiles of no samples");
    std::sort(samples_.begin(), samples_.end());
  }
  [[nodiscard]] double at(double share) const {
    const double position = share * static_cast<double>(samples_.size() - 1);
    const auto below = static_cast<std::size_t>(position);
    const std::size_t above = std::min(below + 1, samples_.size() - 1);
    return std::lerp(samples_[below], samples_[above], position - static_cast<double>(below));
  }

 private:
  std::vector<double> samples_;
};

}  // namespace

Quartiles quartiles(std::vector<double> samples) {
  const Sorted sorted(std::move(samples));
  return {sorted.at(0.25), sorted.at(0.5), sorted.at(0.75)};
}

double quantile(std::vector<double> samples, double share) {
  return Sorted(std::move(samples)).at(share);
}

std::vector<double> ratios(const Series& numerator, const Series& denominator) {
  if (numerator.samples.size() != denominator.samples.size()) {
    throw std::logic_error("'" + numerator.id + "' and '" + denominator.id + "' are no pairs");
  }
  std::vector<double> result(numerator.samples.size());
  std::transform(numerator.samples.begin(), numerator.samples.end(), denominator.samples.begin(),
                 result.begin(), [](double above, double below) { return above / below; });
  return result;
}

Series ratio(Series above, Series below) {
  const std::size_t both = std::min(above.samples.size(), below.samples.size());
  above.samples.resize(both);
  below.samples.resize(both);
  return {"", "", "x", ratios(above, below)};
}

}  // namespace bench
