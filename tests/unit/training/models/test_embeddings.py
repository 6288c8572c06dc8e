"""Words and frames as vectors."""

import numpy as np
import pytest
import torch

from weir.training.errors import ModelError
from weir.training.models.embeddings import FrameInputs, WordInputs

TOKENS = torch.tensor([[2, 3, 0]])
CHARACTERS = torch.tensor([[[1, 2], [3, 0], [0, 0]]])


def test_vector_is_the_words_and_then_its_letters() -> None:
    torch.manual_seed(0)
    inputs = WordInputs(9, 4, characters=5, spelling_width=3)
    assert inputs.spelling is not None

    vectors = inputs(TOKENS, CHARACTERS)

    assert vectors.shape == (1, 3, inputs.width) == (1, 3, 7)
    torch.testing.assert_close(vectors[..., :4], inputs.embedding(TOKENS))
    torch.testing.assert_close(vectors[..., 4:], inputs.spelling(CHARACTERS))
    assert not vectors[0, 2].any()


def test_words_alone_will_do() -> None:
    inputs = WordInputs(9, 4)

    assert inputs(TOKENS).shape == (1, 3, inputs.width) == (1, 3, 4)


def test_letters_for_the_wrong_network_are_refused() -> None:
    with pytest.raises(ModelError, match="expects some"):
        WordInputs(9, 4, characters=5)(TOKENS)
    with pytest.raises(ModelError, match="expects none"):
        WordInputs(9, 4)(TOKENS, CHARACTERS)


def test_frames_are_normalised_as_numpy_does() -> None:
    frames = np.arange(256, dtype=np.uint8).reshape(2, 16, 8)

    vectors = FrameInputs(8, 0.25, 0.5)(torch.from_numpy(frames))

    assert vectors.dtype == torch.float32
    np.testing.assert_allclose(vectors.numpy(), (frames / 255 - 0.25) / 0.5, rtol=1e-5, atol=1e-7)
