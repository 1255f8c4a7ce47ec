"""`python -m viewmeter.cli`, the same as `viewmeter`."""

from viewmeter.cli import main

if __name__ == "__main__":
    main()
