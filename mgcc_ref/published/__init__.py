"""Weights that others publish: where they lie, how they are named, and whether they are what a profile says.

Read are folders in the layouts of `transformers` and `diffusers` with safetensors, and GGUF files. `config.json` is
turned into a config of ours, which is compared with the profile's; every tensor is compared by name and shape. The
original layouts of Stable Diffusion and GLIGEN, and pickles, are brought into that form by `tools/convert_*.py`.
"""
