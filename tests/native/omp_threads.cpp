// SPDX-License-Identifier: Apache-2.0
// The entry points of GCC's OpenMP library that the kernels call, on std::thread. ThreadSanitizer
// cannot see what synchronises the threads of libgomp and reports races that are none; this it
// sees: threads start and end with the loop, and between that nothing is ordered but who takes
// which iteration.
#include <atomic>
#include <thread>
#include <vector>

namespace {

thread_local int thread_number = 0;
thread_local bool in_parallel = false;
std::atomic<long> next_iteration;
long last_iteration = 0;

}  // namespace

extern "C" {

int omp_get_thread_num() { return thread_number; }
int omp_in_parallel() { return in_parallel; }

bool GOMP_loop_nonmonotonic_dynamic_next(long* first, long* last) {
  *first = next_iteration.fetch_add(1, std::memory_order_relaxed);
  *last = *first + 1;
  return *first < last_iteration;
}

void GOMP_loop_end_nowait() {}

void GOMP_parallel_loop_nonmonotonic_dynamic(void (*body)(void*), void* data, unsigned threads,
                                             long first, long last, long, long, unsigned) {
  next_iteration.store(first, std::memory_order_relaxed);
  last_iteration = last;
  std::vector<std::thread> team;
  for (unsigned t = 0; t < threads; ++t) {
    team.emplace_back([=] {
      thread_number = static_cast<int>(t);
      in_parallel = true;
      body(data);
    });
  }
  for (std::thread& thread : team) thread.join();
}

}  // extern "C"
