# make demo    set up, run the whole path on spoken digits, print the table, say where the report is
# make test    set up, run the tests          make check   lint, format, types
# make bench   what the losses and the optimiser cost beside torchaudio's and AdamW's, into bench/results.csv
# make quick   the whole path, smallest setting; make commands then runs those of the README on it; CI does both
# make recipes  every other recipe at its smallest setting, as CI runs it
# make torture a run killed a hundred times at random must end as an undisturbed one
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check quick commands recipes bench torture browser clean

demo: .venv/installed-all
	$(BIN)/todm run digits --out runs/digits

quick: .venv/installed-dev
	rm -rf runs/quick
	$(BIN)/todm run digits --out runs/quick --training.updates 60 --search.trials 8 --search.measured 4 \
		--search.family 2 --data.train 400 --data.dev 40 --data.test 20

# The commands of README.md and docs/deploy.md, as they stand there, on what `make quick` left.
commands: .venv/installed-dev
	$(BIN)/python tests/readme_commands.py runs/quick

# The other recipes, each through the whole path, two side by side.
RECIPES := standout_mnist duality_lenet annealed_sr simcse_sts dynamic_chargpt
recipes: .venv/installed-dev
	rm -rf $(RECIPES:%=runs/quick-%) && mkdir -p runs
	printf '%s\n' $(RECIPES) | xargs -P 2 -I NAME sh -c \
		'$(BIN)/todm run NAME --quick --out runs/quick-NAME > runs/quick-NAME.log 2>&1 && echo "NAME: ok" || { tail -20 runs/quick-NAME.log; exit 255; }'

# torchaudio beside the environment, not in it: it is what the losses are compared with, nothing here uses it.
bench: .venv/installed-all
	[ -d build/torchaudio ] || $(BIN)/pip install --quiet --no-deps --target build/torchaudio 'torchaudio>=2.11,<2.12'
	PYTHONPATH=build/torchaudio $(BIN)/python -m bench.run

# Two processes of one thread each; tests of one file share what it set up.
test: .venv/installed-dev browser
	$(BIN)/pytest --numprocesses 2 --dist loadfile

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types && mkdir -p build/types/todm
	ln -s $(CURDIR)/todm/* $(CURDIR)/export $(CURDIR)/recipes build/types/todm/
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p todm

torture: .venv/installed-dev
	$(BIN)/python tests/torture.py --kills 100

# The browser that the report and the web folder are tested in.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq \
		&& apt-get install -qqy --no-install-recommends chromium chromium-driver >/dev/null; } \
		|| echo "no chromium: the tests of pages will be skipped"

.venv/installed-%: pyproject.toml
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv build runs *.egg-info
