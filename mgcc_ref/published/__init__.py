"""Published weights: finding them, translating their names, and comparing them with a profile.

These modules read folders with safetensors in the layouts of `transformers` and `diffusers`, and GGUF files.
`config.json` is turned into a config of ours and compared with the profile's; every tensor is compared by name and
shape. `tools/convert_*.py` convert pickles, and the original layouts of Stable Diffusion and GLIGEN.
"""
