"""Hypothesis strategies that several tests of generation share."""

from hypothesis import strategies as st

from lm.config.schema import SamplingConfig

SAMPLINGS = st.builds(
    SamplingConfig,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    min_p=st.sampled_from([0.0, 0.2]),
    typical_p=st.sampled_from([1.0, 0.8]),
)

# Arguments of `network_of` in tests/generation/streams.py.
NETWORKS = {
    "layers": st.integers(1, 3),
    "tie": st.booleans(),
    "residual": st.booleans(),
    "embedding_size": st.sampled_from(["auto", 5]),
    "seed": st.integers(0, 50),
}
