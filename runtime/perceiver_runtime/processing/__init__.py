"""Processing before and after a session: text, images, optical flow, video and audio, with NumPy alone.

The rest of the runtime imports nothing from here. Import the module of the modality: `processing.text`,
`processing.image`, `processing.flow`, `processing.multimodal`.
"""
