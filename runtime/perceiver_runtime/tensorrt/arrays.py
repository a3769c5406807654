"""The public path of `DeviceArray`, an array on the GPU that a caller got."""

from perceiver_runtime.cuda.arrays import DeviceArray as DeviceArray
