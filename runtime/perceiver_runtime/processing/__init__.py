"""What happens before and after a session: text, images, optical flow, video and audio, in NumPy alone.

Nothing here is imported by the rest of the runtime. Import the module of the modality: `processing.text`,
`processing.image`, `processing.flow`, `processing.multimodal`.
"""
