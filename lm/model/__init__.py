"""The network: cells, recurrent layers, loss, and where they are computed."""
