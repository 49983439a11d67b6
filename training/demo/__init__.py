"""The bundled model: its corpus, training and evaluation."""
