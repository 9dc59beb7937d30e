#include "support/series.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stdexcept>

namespace bench {

Quartiles quartiles(std::vector<double> samples) {
  if (samples.empty()) throw std::logic_error("quartiles of no samples");
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double fraction) {
    const double position = fraction * static_cast<double>(samples.size() - 1);
    const auto below = static_cast<std::size_t>(position);
    const std::size_t above = std::min(below + 1, samples.size() - 1);
    return std::lerp(samples[below], samples[above], position - static_cast<double>(below));
  };
  return {at(0.25), at(0.5), at(0.75)};
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
