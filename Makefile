# Every target sets up what it needs: .venv, and for test-vllm .venv-vllm as well.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# spelled out, because `accelerate launch` prints a warning for each value that it assumes
ONE_CPU := --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no --num_cpu_threads_per_process 2

.PHONY: demo test test-all test-vllm lint coverage docs bench clean

# torch first and by itself: its CPU build is enough here, and a plain install would fetch CUDA beside it.
$(VENV)/ready: setup.py
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip setuptools wheel
	$(RUN) -m pip install --quiet torch==2.13.0
	$(RUN) -m pip install --quiet --editable ".[all,test]"
	touch $@

demo: $(VENV)/ready
	$(RUN) beam_runner.py --stage captions --samples --output demo/corpus
	$(RUN) beam_runner.py --stage translate --text descriptions --languages pt --output demo/corpus
	$(RUN) beam_runner.py --stage pack --output demo/corpus
	$(VENV)/bin/accelerate launch $(ONE_CPU) stages/train.py --recipe demo --data demo/corpus --output demo/run --overwrite
	$(RUN) stages/score.py --checkpoint demo/run --data demo/corpus --split train
	$(RUN) stages/index.py --checkpoint embedded --data demo/corpus --output demo/index
	$(RUN) stages/search.py --index demo/index -k 3 --picture demo/found.png \
		"a cup of coffee" "eine Tasse Kaffee" "une tasse de café" "una taza de café" "一杯咖啡" "コーヒーカップ"
	@echo "demo/found.png shows it. More queries: $(RUN) stages/search.py --index demo/index \"eine Katze\""
	@echo "A page for the browser: $(RUN) stages/serve.py --index demo/index"

# four workers on two cores: many tests wait for a disk or a server; a worker that crashes ends the run
test: $(VENV)/ready
	$(RUN) -m pytest -n 4 --dist worksteal --max-worker-restart 0 -m "not torture"

test-all: $(VENV)/ready
	$(RUN) -m pytest -n 2 --dist worksteal --max-worker-restart 0

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test-vllm: $(VENV)/ready
	tests/vllm/setup_env.sh || [ $$? -eq 75 ]  # 75: cannot be installed here; the tests skip and say so
	$(RUN) -m pytest --override-ini addopts=-q -rs tests/vllm

coverage: $(VENV)/ready
	$(RUN) -m pytest -n 4 --dist worksteal -m "not torture" --cov --cov-report term:skip-covered --cov-report html:build/coverage

docs: $(VENV)/ready
	$(RUN) -m pip install --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

bench: $(VENV)/ready
	$(RUN) -m pip install --quiet --editable ".[bench]"
	$(RUN) bench/captions.py
	$(RUN) bench/corpus.py
	$(RUN) bench/quality.py
	$(RUN) bench/answers.py
	$(RUN) bench/translate.py
	$(RUN) bench/loading.py
	$(RUN) bench/train.py
	$(RUN) bench/score.py
	$(RUN) bench/search.py
	$(RUN) bench/service.py

clean:
	rm -rf $(VENV) .venv-vllm demo corpus build *.egg-info
