"""transformers' Trainer, which needs accelerate: it trains the model to predict the next token."""

import pytest
import torch

from tests.transformers.models import TEXTS, make, scores

pytestmark = pytest.mark.lm_eval


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_trainer_lowers_the_loss_of_the_next_token(tmp_path, smoothing):
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
    )

    import lm.transformers

    make().save(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    arguments = TrainingArguments(
        str(tmp_path / "trainer"),
        max_steps=60,
        learning_rate=0.01,
        label_smoothing_factor=smoothing,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=[dict(tokenizer(text)) for text in TEXTS * 4],
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    trainer.train()
    trainer.model.save_pretrained(tmp_path / "trained")
    tokenizer.save_pretrained(tmp_path / "trained")
    trained = lm.load(tmp_path / "trained", device="cpu")
    before, after = (torch.cat([scores(one, text) for text in TEXTS]).mean() for one in (make(), trained))
    assert after > before + 1
