// The one precompiled header of the LibTorch module: tensors, all operators and custom autograd
// functions, without the C++ frontend (torch/torch.h costs half as much again to read and nothing
// here uses it).
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
