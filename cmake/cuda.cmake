# The CUDA kernels: the module _cuda, which everything else does without.
#
# FASTUNROLL_CUDA=AUTO  where nvcc works and this machine has a GPU, for that GPU alone, so that no
#                       one waits for code that cannot run here; or for CMAKE_CUDA_ARCHITECTURES,
#                       where that is given
#                ON     for CMAKE_CUDA_ARCHITECTURES, by default all of the list below; an error
#                       where nvcc does not work
#                OFF    never
set(FASTUNROLL_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO, ON or OFF")
set_property(CACHE FASTUNROLL_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT FASTUNROLL_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "FASTUNROLL_CUDA must be AUTO, ON or OFF, got '${FASTUNROLL_CUDA}'")
endif()
if(FASTUNROLL_CUDA STREQUAL "OFF")
  message(STATUS "CUDA kernels: not built, FASTUNROLL_CUDA=OFF")
  return()
endif()

# Before a language is enabled, which keeps a default of its own for the next configuration.
set(architectures ${CMAKE_CUDA_ARCHITECTURES})
if(FASTUNROLL_CUDA STREQUAL "AUTO" AND NOT architectures)
  execute_process(
    COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE capabilities RESULT_VARIABLE failed ERROR_QUIET)
  if(NOT failed)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]+" capabilities "${capabilities}")
    string(REPLACE "." "" architectures "${capabilities}")
    list(REMOVE_DUPLICATES architectures)
    list(FILTER architectures EXCLUDE REGEX "^[1-7].$")  # the kernels need 8.0
    list(TRANSFORM architectures APPEND "-real")
  endif()
  if(NOT architectures)
    message(STATUS "CUDA kernels: not built, no GPU of compute capability 8.0 here; "
                   "FASTUNROLL_CUDA=ON builds them nevertheless")
    return()
  endif()
endif()

if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # no default: every target has its own
endif()
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  enable_language(CUDA)
  find_package(CUDAToolkit 12.0)
endif()
if(NOT CUDAToolkit_FOUND)
  if(FASTUNROLL_CUDA STREQUAL "ON")
    message(FATAL_ERROR "FASTUNROLL_CUDA=ON, but there is no nvcc 12 that works with this compiler "
                        "(CUDACXX names another nvcc, CUDAHOSTCXX another compiler)")
  endif()
  message(STATUS "CUDA kernels: not built, there is no nvcc 12 that works with this compiler")
  return()
endif()
if(NOT architectures)
  set(architectures 80-real 86-real 89-real)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
    list(APPEND architectures 90)  # machine code, and PTX for whatever comes later
  else()
    list(APPEND architectures 90-real 100-real 120)
  endif()
endif()
message(STATUS "CUDA kernels: nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${architectures}")

file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/cuda/*.cu)
add_library(fastunroll_cuda OBJECT ${cuda_sources})
# Results must not depend on which multiplications the compiler chooses to fuse.
target_compile_options(fastunroll_cuda PRIVATE -fmad=false --expt-relaxed-constexpr
  -Xcompiler=-Wall,-Wextra $<$<BOOL:${FASTUNROLL_WERROR}>:-Werror=all-warnings>)
pybind11_add_module(_cuda MODULE NO_EXTRAS csrc/bindings/cuda_module.cpp)
target_link_libraries(_cuda PRIVATE fastunroll_cuda CUDA::cudart_static)
target_compile_options(_cuda PRIVATE
  -Wall -Wextra $<$<BOOL:${FASTUNROLL_WERROR}>:-Werror>)
string(REPLACE ";" " " listed "${architectures}")
target_compile_definitions(_cuda PRIVATE FASTUNROLL_CUDA_MODULE=_cuda
  FASTUNROLL_NVCC="${CMAKE_CUDA_COMPILER_VERSION}" FASTUNROLL_ARCHITECTURES="${listed}")
foreach(target fastunroll_cuda _cuda)
  target_include_directories(${target} PRIVATE csrc csrc/include)
  set_target_properties(${target} PROPERTIES
    CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
    CUDA_ARCHITECTURES "${architectures}"
    CUDA_RUNTIME_LIBRARY Static
    CUDA_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden)
endforeach()
install(TARGETS _cuda DESTINATION fastunroll)
