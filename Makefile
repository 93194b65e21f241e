# make demo and make test do all set-up on a fresh machine; later runs reuse the environment.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
DEV := .venv/ready-dev

.PHONY: demo test check docs wheel bench-quick bench perf clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt "torch" -e ".[bench]"
	touch $(READY)

$(DEV): $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(DEV)

demo: $(READY)  ## edit a generated picture and a real file; pictures under out/demo
	TRANSFORMERS_VERBOSITY=error $(BIN)/python examples/demo.py out/demo

test: $(DEV)
	$(BIN)/python -m pytest -n auto --dist loadfile

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: $(DEV)  ## the documentation site under out/site, every link checked; offline
	$(BIN)/python .ci/site.py

wheel: $(DEV)  ## build the wheel, install it elsewhere, edit a picture with it
	$(BIN)/python .ci/wheel.py --borrow

bench-quick: $(READY)  ## 66 held-out scenes, six ways to edit them; tables and curves under out/bench-quick
	$(BIN)/stableflow bench scenes --settings quick --count 66 --out out/bench-quick

bench: $(READY)  ## every ablation; hours on two cores, and it goes on where it was
	for set in layers windows single random editors; do $(BIN)/stableflow bench scenes --settings $$set --out out/bench/$$set; done
	for set in layers nudging inversion; do $(BIN)/stableflow bench scenes-real --settings $$set --out out/bench/real-$$set; done

perf: $(READY)  ## speed, loss and memory against the published way: docs/perf.json, docs/concepts/speed.md
	OMP_NUM_THREADS=1 TRANSFORMERS_VERBOSITY=error $(BIN)/python -m stableflow.benchmarks.perf

clean:
	rm -rf .venv out
