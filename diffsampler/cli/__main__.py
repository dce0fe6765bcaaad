"""`python -m diffsampler.cli`."""

from diffsampler.cli import main

if __name__ == "__main__":
    main()
