"""The parsers under fire: `make fuzz` (run.py), `make differential` (differential.py), and the corpus that
test_fuzz_corpus.py replays in every `make test`."""
