"""Beginnings of files that NVIDIA publishes with its engine explorer, as trtexec 8 to 10 wrote them.

https://github.com/NVIDIA/TensorRT, tools/experimental/trt-engine-explorer/tests/inputs: mobilenet.qat and
mobilenet_v2_residuals.qat. `PROFILE_WITH_MEDIANS` has the form since 8.5.
"""

TIMES = """[
  { "startEnqMs" : 6.84334, "endEnqMs" : 6.92035, "startH2dMs" : 6.8096, "endH2dMs" : 6.8096, "startComputeMs" : 6.8096, "endComputeMs" : 7.09837, "startD2hMs" : 7.09837, "endD2hMs" : 7.09837, "h2dMs" : 0, "computeMs" : 0.288768, "d2hMs" : 0, "latencyMs" : 0.288768 }
, { "startEnqMs" : 6.92958, "endEnqMs" : 6.96112, "startH2dMs" : 7.1016, "endH2dMs" : 7.1016, "startComputeMs" : 7.1016, "endComputeMs" : 7.36461, "startD2hMs" : 7.36461, "endD2hMs" : 7.36461, "h2dMs" : 0, "computeMs" : 0.263008, "d2hMs" : 0, "latencyMs" : 0.263008 }
, { "startEnqMs" : 7.22019, "endEnqMs" : 7.25096, "startH2dMs" : 7.36637, "endH2dMs" : 7.36637, "startComputeMs" : 7.36637, "endComputeMs" : 7.63834, "startD2hMs" : 7.63834, "endD2hMs" : 7.63834, "h2dMs" : 0, "computeMs" : 0.271968, "d2hMs" : 0, "latencyMs" : 0.271968 }
]
"""  # noqa: E501

PROFILE = """[
  { "count" : 4216 }
, { "name" : "QuantizeLinear_2", "timeMs" : 51.4526, "averageMs" : 0.0122041, "percentage" : 1.88608 }
, { "name" : "features.0.0.weight + QuantizeLinear_8 + Conv_12 + PWN(Clip_16)", "timeMs" : 45.3071, "averageMs" : 0.0107465, "percentage" : 1.66081 }
]
"""  # noqa: E501

PROFILE_WITH_MEDIANS = """[
  { "count" : 41400 }
, { "name" : "/conv1/Conv + /act1/Relu", "timeMs" : 1160.78, "averageMs" : 0.0280382, "medianMs" : 0.027872, "percentage" : 100 }
]
"""  # noqa: E501

LAYERS = """{"Layers": [{
  "Name": "QuantizeLinear_2",
  "LayerType": "Reformat",
  "Inputs": [
  {
    "Name": "input1",
    "Location": "Device",
    "Dimensions": [1,3,224,224],
    "Format/Datatype": "Row major linear FP32"
  }],
  "Outputs": [
  {
    "Name": "317",
    "Location": "Device",
    "Dimensions": [1,3,224,224],
    "Format/Datatype": "Four wide channel vectorized row major Int8 format"
  }],
  "ParameterType": "Reformat",
  "Origin": "QDQ",
  "TacticValue": "0x0000000000000000"
},{
  "Name": "features.0.0.weight + QuantizeLinear_8 + Conv_12 + PWN(Clip_16)",
  "LayerType": "CaskConvolution",
  "Inputs": [],
  "Outputs": [],
  "TacticName": "volta_int8x4_icudnn_int8x4_128x32_relu_xregs_medium_c32_nn_v1",
  "TacticValue": "0x10d7116a3fad9b7a"
}],
"Bindings": ["input1"]
}
"""

NAMES_ALONE = (
    '{"Layers": ["Reformatting CopyNode for Input Tensor 0 to resnetv15_conv0_fwd"\n,"resnetv15_conv0_fwd"\n]}\n'
)
