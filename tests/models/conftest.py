from torch_threads import deterministic as deterministic
