"""The Qwen-VLA model: backbone, action expert, value head, prompt and image processing."""
