"""Models of lm in Hugging Face transformers. Importing this registers them with its Auto classes.

>>> import lm.transformers
>>> from transformers import AutoModelForCausalLM, AutoTokenizer
>>> model = AutoModelForCausalLM.from_pretrained("runs/hamlet")
"""

from transformers import AutoConfig, AutoModelForCausalLM

from lm.transformers.modeling import RecurrentLMConfig, RecurrentLMForCausalLM, RecurrentState

__all__ = ["RecurrentLMConfig", "RecurrentLMForCausalLM", "RecurrentState"]

AutoConfig.register(RecurrentLMConfig.model_type, RecurrentLMConfig, exist_ok=True)
AutoModelForCausalLM.register(RecurrentLMConfig, RecurrentLMForCausalLM, exist_ok=True)
