# Sets the project up and checks it. `make` alone lists the targets.

# Where everything is installed, and with which Python: by default the one the venv was made with, else
# the first of $(PYTHONS) that runs, is new enough and can make a venv.
VENV ?= .venv
PYTHON ?=
PYTHONS := python3.13 python3.12 python3.11 python3
UV := uv==0.13.9

# The install step compiles: without .pyc files every start of `maven` costs four to five times as much.
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH PIP_NO_COMPILE PIP_USER
.NOTPARALLEL:
.PHONY: help install demo test bench lock upgrade clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\): *## \(.*\)/  make \1	\2/p' Makefile
	@echo '  PYTHON=python3.12 and VENV=/some/where choose another interpreter and another place.'

install: ## Install maven and what it needs to run: .venv/bin/maven
	$(call set-up,run,requirements.lock)

demo: ## Install, then show every worker at work on a throw-away database
	$(call set-up,run,requirements.lock)
	@"$(VENV)/bin/maven" demo

test: ## Check style, types and layers, then run the tests (MAVEN_TEST_FULL=1: the long version too)
	$(call set-up,dev,requirements-dev.lock)
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/mypy"
	"$(VENV)/bin/lint-imports"
	"$(VENV)/bin/python" -m pytest -n auto

bench: ## Run the benchmarks
	$(call set-up,dev,requirements-dev.lock)
	@"$(VENV)/bin/python" -m benchmarks

lock: ## Bring both lock files up to date with pyproject.toml; pins that still fit stay
	$(call compile-locks,)

upgrade: ## Pin the newest versions that pyproject.toml allows
	$(call compile-locks,--upgrade)

clean: ## Remove the venv and everything generated
	@if [ -e "$(VENV)/$(mark)" ] || [ '$(VENV)' = .venv ]; then rm -rf "$(VENV)"; fi
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache benchmarks/out
	@find . \( -path ./.git -o -path ./.venv \) -prune -o -name __pycache__ -prune -exec rm -rf {} +


# A venv is *whole* while $(mark)-whole holds its identity. The file goes before anything in the venv changes and
# comes back when all of it is done, so what a killed run left behind is made anew, never built upon. The identity
# holds the path too: a venv moved or copied with its checkout would still run the old one.
mark := .maven
identity := import os, sys; print(os.getcwd(), sys.base_prefix, *sys.version_info[:3])
inputs := cat pyproject.toml requirements.lock requirements-dev.lock

# Prints `use: <python>`, or `stop: <what to install>`. Candidates are run: a pyenv shim exists and fails all the same.
probe := import sys, importlib.util as u; \
  print("%d.%d" % sys.version_info[:2], sys.version_info >= (3, 11), all(getattr(u.find_spec(name), "origin", None) for name in ("venv", "ensurepip")))
find-python = \
  old=; bare=; \
  for python in $(if $(PYTHON),"$(PYTHON)",$(PYTHONS)); do \
    facts=$$("$$python" -c '$(probe)' 2>/dev/null) || continue; \
    case $$facts in \
      *" True True") echo "use: $$python"; exit ;; \
      *" True False") bare=$$python ;; \
      *) old=$${old:-"$$python is $${facts%% *}"} ;; \
    esac; \
  done; \
  if [ -n "$$bare" ]; then echo "stop: $$bare cannot make virtual environments: apt install $${bare\#\#*/}-venv"; \
  elif [ -n "$$old" ]; then echo "stop: Python 3.11 or newer is needed, $$old: apt install python3.11-venv"; \
  elif [ -n "$(PYTHON)" ]; then echo "stop: $(PYTHON) does not run here: apt install $(or $(filter python3%,$(notdir $(PYTHON))),python3)-venv"; \
  else echo "stop: Python 3.11 or newer is needed: apt install python3-venv"; fi

# Prints `keep` for a whole venv of the Python asked for, else what find-python prints.
choose-python = \
  have=$$("$(VENV)/bin/python" -c '$(identity)' 2>/dev/null); want=$$have; \
  $(if $(PYTHON),want=$$("$(PYTHON)" -c '$(identity)' 2>/dev/null);) \
  if [ -n "$$have" ] && [ "$$have" = "$$want" ] && [ "$$have" = "$$(cat "$(VENV)/$(mark)-whole" 2>/dev/null)" ]; \
  then echo keep; exit; fi; \
  $(find-python)

# $(1): find-python or choose-python. make's own error keeps the message to one line.
define decide
$(eval decision := $(shell $($(1))))$(if $(filter stop:,$(firstword $(decision))),$(error $(subst stop: ,,$(decision))))
endef

# $(1): run or dev, $(2): its lock. Does nothing but compile when nothing that decides the venv's content has changed.
define set-up
$(call decide,choose-python)
@set -eu; venv='$(VENV)'; python='$(subst use: ,,$(filter-out keep,$(decision)))'; \
if [ -n "$$python" ]; then \
  if [ "$$venv" != .venv ] && [ ! -e "$$venv/$(mark)" ] && [ -n "$$(ls -A "$$venv" 2>/dev/null)" ]; then \
    echo "$$venv is there already and was not made by this Makefile: name another VENV" >&2; exit 1; \
  fi; \
  echo "Making $$venv with $$("$$python" -V)"; \
  rm -rf "$$venv"; mkdir -p "$$venv"; : >"$$venv/$(mark)"; \
  "$$python" -m venv "$$venv" || { rm -rf "$$venv"; exit 1; }; \
fi; \
if ! $(inputs) | cmp -s - "$$venv/$(mark)-$(1)"; then \
  rm -f "$$venv/$(mark)-"*; \
  echo "Installing $(2) into $$venv"; \
  "$$venv/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes -r $(2); \
  "$$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .; \
  $(inputs) >"$$venv/$(mark)-run"; \
  if [ $(1) = dev ]; then cp "$$venv/$(mark)-run" "$$venv/$(mark)-dev"; fi; \
  "$$venv/bin/python" -c '$(identity)' >"$$venv/$(mark)-whole"; \
fi; \
"$$venv/bin/python" -m compileall -qq maven_cli || :
endef

# $(1): flags for uv. The build backend is locked with the rest, so that installing the project fetches nothing else.
# The runtime lock is compiled under the dev lock's constraints: same versions, fewer packages.
define compile-locks
$(call decide,find-python)
@set -eu; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; trap 'exit 1' HUP INT TERM; \
"$(subst use: ,,$(decision))" -m venv "$$tools"; \
"$$tools/bin/python" -m pip install -qq --disable-pip-version-check $(UV); \
compile() { \
  "$$tools/bin/python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' | \
  "$$tools/bin/uv" pip compile --quiet --no-config --python "$$tools/bin/python" --universal --python-version 3.11 \
    --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' "$$@" pyproject.toml -; \
}; \
compile $(1) --extra dev --output-file requirements-dev.lock; \
compile --upgrade --constraint requirements-dev.lock --output-file requirements.lock
endef
