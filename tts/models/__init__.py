"""Models and what runs them. Only the files in here (and tts.tiny) import torch, transformers or vllm."""
