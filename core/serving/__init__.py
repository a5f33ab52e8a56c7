"""The parts of the local model server: token, versions, decoding, scheduling. torch is imported when a model is first needed."""
