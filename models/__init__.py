"""All that touches torch: classes, detector, reader, renderer, training, weights. Knows no sites and no coordinates."""
