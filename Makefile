# Two targets are all a newcomer needs: `make demo` and `make test`. Both install what is missing (saying what), build, and run;
# repeating them costs nothing. Variables: BUILD, JOBS, SLMC_TORCH (a LibTorch or torch folder), SLMC_TORCH_INDEX (package index for torch),
# TARGETS (only these programs).
BUILD ?= build
JOBS ?= $(shell nproc)
PRESET ?= release

.PHONY: all build test demo notorch asan peers format format-check clean setup

all: build

setup:
	@cmake/bootstrap.sh $(if $(filter release dev,$(PRESET)),,--no-torch)

# Configures again when the presets or the LibTorch that was found have changed.
build: setup
	@if [ ! -f $(BUILD)/build.ninja ] || [ CMakePresets.json -nt $(BUILD)/build.ninja ] || [ build/torch.path -nt $(BUILD)/build.ninja ]; then \
	  cmake --preset $(PRESET) -B $(BUILD) $(if $(filter release dev,$(PRESET)),-DSLMC_TORCH="$$(cat build/torch.path)") $(CMAKE_FLAGS); fi
	@cmake --build $(BUILD) -j $(JOBS) $(if $(TARGETS),--target $(TARGETS))

# The default tests: no Python, no network, nothing outside this folder. `make peers` compares with other programs.
test: build
	ctest --test-dir $(BUILD) -j $(JOBS) -LE 'peers|slow' --output-on-failure

demo: build
	@$(BUILD)/helpdesk-demo $(DEMO)

peers: build
	ctest --test-dir $(BUILD) -L 'peers' --output-on-failure

notorch:
	@$(MAKE) test PRESET=notorch BUILD=build-notorch

asan:
	@$(MAKE) test PRESET=asan BUILD=build-asan

# Formatters of other versions disagree in details, so one version decides: 14, Debian 12's (also `pip install clang-format==14.0.6`).
CLANG_FORMAT ?= $(shell command -v clang-format-14 || echo clang-format)
format:
	git ls-files '*.cc' '*.h' | xargs $(CLANG_FORMAT) -i

format-check:
	@$(CLANG_FORMAT) --version | grep -q 'version 14\.' || { echo "format-check needs clang-format 14"; exit 1; }
	@git ls-files '*.cc' '*.h' | xargs $(CLANG_FORMAT) --dry-run --Werror

clean:
	rm -rf build build-notorch build-asan build-aarch64
