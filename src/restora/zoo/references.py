"""The benchmarks of shipped models, and the figures of other methods there, by the same protocol.

Sources: K. Zhang, W. Zuo, L. Zhang, "FFDNet", TIP 2018, tables II and IV (BM3D, CBM3D, FFDNet); K. Zhang et
al., "Beyond a Gaussian Denoiser", TIP 2017, tables II and III (DnCNN-S, DnCNN-3); J. Kim et al., "Accurate
Image Super-Resolution Using Very Deep Convolutional Networks", CVPR 2016, table 3 (bicubic, VDSR).
"""

MEASURED: dict[str, tuple[str, ...]] = {
    "denoise": ("cbsd68_sigma15", "cbsd68_sigma25", "cbsd68_sigma50"),
    "denoise_gray": ("bsd68_sigma15", "bsd68_sigma25", "bsd68_sigma50"),
    "half_minute": ("bsd68_sigma25",),
    "photo": ("kodak24_everyday", "kodak24_sigma15", "kodak24_sigma25", "kodak24_q10", "kodak24_q40"),
    "deblur": ("kodak24_blurred", "kodak24_gaussian2", "kodak24_defocus3", "kodak24_motion9"),
    "inpaint": ("kodak24_damaged",),
    "old_photo": ("kodak24_old_photo",),
    "jpeg": (
        *("kodak24_jpeg", "kodak24_q10", "kodak24_q20", "kodak24_q40"),
        *("bsd68_q10", "bsd68_q20", "bsd68_q30", "bsd68_q40"),
        *("classic5_q10", "classic5_q20", "classic5_q40", "live1_q10", "live1_q20", "live1_q40"),
    ),
    "sr_x2": ("set5_x2", "set14_x2"),
    "sr_x4": ("set5_x4", "set14_x4"),
    "sr_photo_x2": ("kodak24_small_x2",),
    "sr_photo_x4": ("kodak24_small_x4",),
}
"""Benchmarks by model; the first figure of a model is shown first."""

CURVES: dict[str, tuple[str, tuple[int, ...]]] = {
    "denoise": ("cbsd68_sigma25", (1, 2, 3, 5, 10, 35, 55, 65)),
    "denoise_gray": ("bsd68_sigma25", (1, 2, 3, 5, 10, 35, 55, 65)),
    "photo": ("kodak24_sigma25", (1, 2, 3, 5, 10, 35, 55)),
    "deblur": ("kodak24_motion9", (1, 3, 5, 9, 15, 21)),
    "jpeg": ("kodak24_q10", (3, 5, 10, 30, 60, 80, 90, 95, 98)),
}
"""Benchmark and severities of a model's curve, also outside its range."""

CURVE_PHOTOS = 8
"""The first photos of the test set: enough to show to a tenth of a dB where a model helps and where it harms.
"""

PSNR: dict[str, dict[str, float]] = {
    "cbsd68_sigma15": {"CBM3D": 33.52, "FFDNet": 33.87},
    "cbsd68_sigma25": {"CBM3D": 30.71, "FFDNet": 31.21},
    "cbsd68_sigma50": {"CBM3D": 27.38, "FFDNet": 27.96},
    "bsd68_sigma15": {"BM3D": 31.07, "FFDNet": 31.63},
    "bsd68_sigma25": {"BM3D": 28.57, "FFDNet": 29.19},
    "bsd68_sigma50": {"BM3D": 25.62, "FFDNet": 26.29},
    "live1_q10": {"DnCNN-3": 29.19},
    "live1_q20": {"DnCNN-3": 31.59},
    "live1_q40": {"DnCNN-3": 33.96},
    "set5_x2": {"bicubic": 33.66, "VDSR": 37.53},
    "set14_x2": {"bicubic": 30.24, "VDSR": 33.03},
    "set5_x4": {"bicubic": 28.42, "VDSR": 31.35},
    "set14_x4": {"bicubic": 26.00, "VDSR": 28.01},
}
"""Benchmark -> method -> dB, from the weaker to the stronger: the last is the goal."""
