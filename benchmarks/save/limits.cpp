#include "save/limits.h"

#include "save/figures.h"
#include "support/bare_writer.h"
#include "support/copy_baseline.h"
#include "support/fio.h"
#include "support/gpt2_state.h"
#include "support/progress.h"
#include "support/warm_memory.h"

namespace bench {
namespace {

constexpr std::uint64_t kPage = 4096;

std::uint64_t whole_pages(std::uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

void note_small_pages(const WarmMemory& memory, std::uint64_t bytes, RunFigures& run) {
  if (memory.huge_bytes() < bytes) {
    run.notes.emplace_back("not all of the memory to compare with was in huge pages");
  }
}

}  // namespace

PlainCopy::PlainCopy(const Setting& setting)
    : SaveContestant("memcpy", "memcpy by as many threads"), setting_(setting) {}

RunFigures PlainCopy::run(int /*round*/) {
  const SavedState& state = setting_.states.get(setting_.spec);
  const WarmMemory warm(state.bytes);
  const CopyBaseline copy(state.payloads, warm.bytes(),
                          setting_.config.staging_config.copy_threads);
  setting_.work.clear();
  (void)copy.run();  // pays for what the first of anything pays
  RunFigures run;
  run.steady = median_of(setting_.saves, [&] {
    check_interrupts();
    SaveFigures figures;
    figures.staged = copy.run();
    // Now that the copy has filled the caches, as saves find them.
    figures.walked = walk_state(state.dict);
    return figures;
  });
  note_small_pages(warm, state.bytes, run);
  return run;
}

BareWriter::BareWriter(const Setting& setting)
    : SaveContestant("bare", "bare O_DIRECT writer, no checksums"), setting_(setting) {}

RunFigures BareWriter::run(int /*round*/) {
  const std::uint64_t bytes = whole_pages(setting_.file_bytes);
  const WarmMemory warm(bytes);
  const std::string path = setting_.work.path() + "/bare";
  RunFigures run;
  run.steady = median_of(setting_.saves, [&] {
    check_interrupts();
    setting_.work.clear();
    SaveFigures figures;
    figures.durable = write_bare(path, warm.bytes().first(bytes));
    return figures;
  });
  setting_.work.clear();
  note_small_pages(warm, bytes, run);
  return run;
}

Fio::Fio(const Setting& setting) : SaveContestant("fio", "fio"), setting_(setting) {}

RunFigures Fio::run(int /*round*/) {
  RunFigures run;
  run.steady = median_of(setting_.saves, [&] {
    check_interrupts();
    setting_.work.clear();
    SaveFigures figures;
    figures.durable = static_cast<double>(setting_.file_bytes) /
                      fio_write_rate(setting_.work.path(), setting_.file_bytes);
    return figures;
  });
  setting_.work.clear();
  return run;
}

}  // namespace bench
