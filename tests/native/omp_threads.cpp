// SPDX-License-Identifier: Apache-2.0
// The entry points of GCC's OpenMP library that the kernels call when compiled with -O1, on
// std::thread. ThreadSanitizer cannot see what synchronises the threads of libgomp and reports
// races that are none; this it sees: threads start and end with the loop, and between that nothing
// is ordered but who takes which iteration.
#include <atomic>
#include <thread>
#include <vector>

namespace {

thread_local int thread_number = 0;
thread_local bool in_parallel = false;
thread_local long last_iteration = 0;
std::atomic<long> next_iteration;  // of the one loop of a parallel region; loops count from 0

}  // namespace

extern "C" {

int omp_get_thread_num() { return thread_number; }
int omp_in_parallel() { return in_parallel; }

bool GOMP_loop_nonmonotonic_dynamic_next(long* first, long* last) {
  *first = next_iteration.fetch_add(1, std::memory_order_relaxed);
  *last = *first + 1;
  return *first < last_iteration;
}

bool GOMP_loop_nonmonotonic_dynamic_start(long, long end, long, long, long* first, long* last) {
  last_iteration = end;
  return GOMP_loop_nonmonotonic_dynamic_next(first, last);
}

void GOMP_loop_end_nowait() {}

void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
  next_iteration.store(0, std::memory_order_relaxed);
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
