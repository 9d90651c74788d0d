"""The arms of the paper's ablation: trained alike, drawn with, scored and compared."""
