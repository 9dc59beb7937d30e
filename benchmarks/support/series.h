// One quantity, measured several times.
#pragma once

#include <string>
#include <vector>

namespace bench {

struct Quartiles {
  double lower;  ///< a quarter of the samples is below
  double median;
  double upper;  ///< a quarter of the samples is above
};

struct Series {
  std::string id;     ///< the key in the JSON file
  std::string label;  ///< the row's name in the table
  std::string unit;
  std::vector<double> samples;  ///< in the order of measurement

  void add(double sample) { samples.push_back(sample); }
};

/// Interpolates linearly between samples.
/// @throws std::logic_error without samples
Quartiles quartiles(std::vector<double> samples);
/// The same for any share of the samples, 0 to 1, that is to be below.
double quantile(std::vector<double> samples, double share);

/// Sample by sample. Meant for pairs that were measured right after each other.
/// @throws std::logic_error if they have different counts
std::vector<double> ratios(const Series& numerator, const Series& denominator);
/// The same of the rounds that both were in: who failed is left out of the later ones.
Series ratio(Series above, Series below);

}  // namespace bench
