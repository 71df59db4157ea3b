"""`python -m detector NAME` is `detector NAME`; for torchrun: `torchrun ... -m detector train`."""

from detector.commands.program import main

if __name__ == "__main__":
    main()
