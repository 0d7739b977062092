# Finds LibTorch inside a `torch` wheel or an unpacked libtorch: -DSLMC_TORCH=DIR (or the environment's SLMC_TORCH), else the `torch` that
# python3 imports. DIR holds include/ and lib/. TorchConfig.cmake is not used: it warns about kineto and puts build machines' folders into
# RUNPATH. Gives LibTorch::LibTorch and LibTorch::c10, LibTorch_DIRECTORY and LibTorch_VERSION.

set(SLMC_TORCH "" CACHE PATH "Folder of LibTorch (with include/ and lib/); empty: the torch that python3 imports")
set(LibTorch_DIRECTORY "${SLMC_TORCH}")
if(NOT LibTorch_DIRECTORY AND DEFINED ENV{SLMC_TORCH})
  set(LibTorch_DIRECTORY "$ENV{SLMC_TORCH}")
endif()
if(NOT LibTorch_DIRECTORY)
  find_program(SLMC_PYTHON NAMES python3 python)
  if(SLMC_PYTHON)
    # find_spec does not import torch, which would take seconds.
    execute_process(
      COMMAND ${SLMC_PYTHON} -c
              "import importlib.util as u, os; s = u.find_spec('torch'); print(os.path.dirname(s.origin) if s and s.origin else '')"
      OUTPUT_VARIABLE LibTorch_DIRECTORY OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
endif()

set(LibTorch_VERSION "")
if(LibTorch_DIRECTORY)
  # 2.11 and later keep the version here.
  foreach(header torch/headeronly/version.h torch/csrc/api/include/torch/version.h)
    if(NOT LibTorch_VERSION AND EXISTS "${LibTorch_DIRECTORY}/include/${header}")
      file(STRINGS "${LibTorch_DIRECTORY}/include/${header}" line REGEX "^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
      string(REGEX REPLACE "[^0-9;]" "" line "${line}")
      string(REPLACE ";" "." LibTorch_VERSION "${line}")
    endif()
  endforeach()
endif()

foreach(library c10 torch_cpu torch)
  set(LibTorch_${library}_LIBRARY "LibTorch_${library}_LIBRARY-NOTFOUND")
  set(file "${LibTorch_DIRECTORY}/lib/${CMAKE_SHARED_LIBRARY_PREFIX}${library}${CMAKE_SHARED_LIBRARY_SUFFIX}")
  if(LibTorch_DIRECTORY AND EXISTS "${file}")
    set(LibTorch_${library}_LIBRARY "${file}")
  endif()
endforeach()

include(FindPackageHandleStandardArgs)
set(LibTorch_FIND_VERSION 2.11)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_DIRECTORY LibTorch_c10_LIBRARY LibTorch_torch_cpu_LIBRARY LibTorch_torch_LIBRARY
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "get it with 'pip install torch==2.13.0', give its folder with -DSLMC_TORCH=DIR, or build without training: -DSLMC_TORCH_MODULE=OFF")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  foreach(library c10 torch_cpu torch)
    add_library(LibTorch::${library} SHARED IMPORTED)
    set_target_properties(LibTorch::${library} PROPERTIES
      IMPORTED_LOCATION "${LibTorch_${library}_LIBRARY}"
      INTERFACE_INCLUDE_DIRECTORIES "${LibTorch_DIRECTORY}/include"
      INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${LibTorch_DIRECTORY}/include")
  endforeach()
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  # Not libtorch.so: of a LibTorch with CUDA it brings all of CUDA, which is opened at run time and for a GPU alone.
  target_link_libraries(LibTorch::LibTorch INTERFACE LibTorch::torch_cpu LibTorch::c10)
  if(EXISTS "${LibTorch_DIRECTORY}/include/torch/csrc/api/include")
    target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE "${LibTorch_DIRECTORY}/include/torch/csrc/api/include")
  endif()
endif()
