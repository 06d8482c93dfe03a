# Everything a person does here. The first call sets up; later calls find it done.
# Set-up runs on any Python from 3.7 on and finds 3.12 itself; a pyenv shim may be there and fail.
RUNS = import sys; sys.exit(sys.version_info < (3, 7))
BOOT = $(shell for python in $(PYTHON) python3 python3.12 python; do \
	"$$python" -c '$(RUNS)' 2>/dev/null && echo "$$python" && break; done)
RUN := .venv/bin/python
ENVIRONMENTS := .venv .venv-serving
UV := .build/uv/bin/uv
SCRIPTS = .ci/run $(wildcard kustomize/local/*.sh tests/machine/*.sh)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-docs docs docs-serve test-data test-kill test-live test-weaviate test-hostile bench-serving bench-size bench-gate bench-training bench-drift bench-quality test-cluster cluster-up cluster-down kind kind-down minikube minikube-down images licences manifests lint types check-requirements compile protocol lock clean install-extension uninstall-extension
export PYTHON
export TF_CPP_MIN_LOG_LEVEL ?= 2
# Where a shell sets it, each of hundreds of processes that tests and pipelines start would compile
# Refit again, and pytest every test.
unexport PYTHONDONTWRITEBYTECODE

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' Makefile

setup:  ## find Python 3.12 and make both environments, unless that was done
	@python='$(BOOT)'; $${python:?no Python was found: install Python 3.12} tools/set_up.py --quiet

install-extension: setup  ## install a package of your own into both environments; PACKAGE=<its folder>
	@test -f '$(PACKAGE)/pyproject.toml' || { echo 'PACKAGE=$(PACKAGE): no folder with a pyproject.toml; give its full path' >&2; exit 2; }
	@for environment in $(ENVIRONMENTS); do \
		$(UV) pip install --quiet --offline --no-deps --no-build-isolation --reinstall --python $$environment '$(PACKAGE)' || exit; \
		echo "installed $$(basename '$(PACKAGE)') into $$environment"; \
	done

uninstall-extension:  ## remove it from both environments; NAME=<the package's name>
	@for environment in $(ENVIRONMENTS); do \
		$(UV) pip uninstall --quiet --python $$environment '$(NAME)' || exit; \
		echo "removed $(NAME) from $$environment"; \
	done

demo: setup  ## the whole loop, shown on one page; SOURCE=renttherunway DATA=<folder> replays real rentals
	@.venv/bin/refit demo $(if $(SOURCE),--source $(SOURCE)) $(if $(DATA),--data $(DATA)) $(ARGS)

test: setup  ## every quick test; ARGS="-k name" for some
	@$(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

test-docs: setup  ## run the commands of the tutorial and of the how-to guides; takes minutes
	@$(RUN) -m pytest -m docs tests/docs $(ARGS)

docs: setup  ## build the site into build/site; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs --quiet build --strict

docs-serve: setup  ## serve the site on port 8000, built again when a page changes
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs serve

test-data: setup  ## the tests that need public data sets; REFIT_DATA=<folder that holds them>
	@$(RUN) -m pytest -m data $(ARGS)

test-kill: setup  ## kill -9 at random moments, then look for torn files; takes minutes
	@$(RUN) -m pytest -m slow tests/kill $(ARGS)

test-hostile: setup  ## 10,000 hostile requests and 1,000 slow connections against the plain door; takes minutes
	@$(RUN) -m pytest -m slow -s tests/serving/doors/test_hostile.py $(ARGS)

bench-serving: setup  ## measure the doors beside an empty Seldon model, REST and gRPC, in one table; takes minutes
	@$(RUN) -m tests.benchmarks.serving $(ARGS)

bench-size: setup  ## measure one process at a marketplace's size: memory, start, filters, fresh listings; ARGS="--items 200000 --vectors int8"; takes minutes
	@$(RUN) -m tests.benchmarks.serving.size $(ARGS)

test-weaviate: setup  ## three real nodes of Weaviate behind the recommender, tested and measured; needs Go; ARGS="--items 20000"
	@$(RUN) -m pytest -m slow -s tests/serving/engines
	@$(RUN) -m tests.weaviate $(ARGS)

test-live: setup  ## what happens reaches the answers, whatever is killed, away or hostile: one table; ARGS="--only latency" for a part; takes two hours
	@$(RUN) -m tests.benchmarks.live $(ARGS)

bench-gate: setup  ## attack the gate and the registry: one table of what is refused, and why; takes minutes
	@$(RUN) -m tests.benchmarks.gate $(ARGS)

bench-quality: setup  ## train and evaluate on public sets beside published figures, and on the simulated market: one table; REFIT_DATA=<folder>; ARGS="--only beauty --seeds 0"; takes hours
	@$(RUN) -m tests.benchmarks.quality $(ARGS)

bench-training: setup  ## train on a simulated million events: speed, recall, and what the time goes to; ARGS="--only refit" for a part; takes minutes
	@$(RUN) -m tests.benchmarks.bench_training $(ARGS)

bench-drift: setup  ## judge the monitor where the truth is known: one table; ARGS="--only power" for a part; REFIT_DATA=<folder> adds real streams; takes 40 minutes
	@$(RUN) -m tests.benchmarks.drift $(ARGS)

test-cluster: setup  ## start a real Kubernetes and run the cluster tests; needs root and Go; ARGS="--tier cluster" for tier 1
	@$(RUN) -m tests.cluster $(ARGS)

cluster-up: setup  ## start a cluster with Seldon's operator and an object store, until cluster-down
	@$(RUN) -m tests.machine up $(ARGS)

cluster-down: setup  ## delete that cluster
	@$(RUN) -m tests.machine down $(ARGS)

kind: setup  ## install everything in a kind cluster on this machine and open ports; ARGS="open_ports" for single steps
	@kustomize/local/kind.sh $(ARGS)

kind-down:  ## delete the kind cluster
	@kustomize/local/kind.sh down

minikube: setup  ## the same in minikube
	@kustomize/local/minikube.sh $(ARGS)

minikube-down:  ## delete the minikube cluster
	@kustomize/local/minikube.sh down

licences: setup  ## list the packages of the image without Seldon with their licences; fails on one that is not permitted
	@.venv-serving/bin/python tools/licences.py --only serving/requirements-plain.txt

images: setup  ## build the images with docker, podman or buildah; ARGS="--save DIR", "--builder ..."
	@$(RUN) tools/build_images.py $(ARGS)

manifests: setup  ## build every overlay, compare with the golden files, test the alert rules; ARGS=--renew updates them
	@$(RUN) -m tests.kustomize.manifests $(ARGS)

lint: setup  ## style, docstrings, which room may import which; shellcheck of all scripts
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@.venv/bin/lint-imports
	@.venv/bin/shellcheck --external-sources $(SCRIPTS)

types: setup  ## strict types of our packages; in benches, whether calls fit
	@$(RUN) -m mypy

check-requirements: setup  ## resolve every requirements file again and compare
	@$(RUN) tools/lock.py --check

compile: setup  ## renew the compiled pipelines after changing one
	@$(RUN) -m pipelines.compile

protocol: setup  ## compile the messages of gRPC after changing a .proto file
	@$(UV) run --quiet --no-project --python 3.12 --with grpcio-tools==1.71.2 --with setuptools==80.9.0 \
		python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. serving/doors/protocol/inference.proto \
		serving/model_server_api/tensorflow_serving.proto serving/engines/protocol/weaviate.proto

lock: setup  ## renew the locked requirements after changing an .in file; ARGS=--upgrade for all
	@$(RUN) tools/lock.py $(ARGS)

clean:  ## remove what runs wrote; environments stay
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache local_outputs
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
