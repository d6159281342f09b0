"""Everything that is computed, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastunroll.data.checksums import checksum
from fastunroll.dictionary import ConvolutionalPUDLE, CSCNet, denoise_by_shifts
from fastunroll.dictionary.pudle import GRADIENTS
from fastunroll.experiments.pudle.cscnet import score_cscnet, train_cscnet
from fastunroll.experiments.pudle.denoising import KINDS, learn_filters, score_images, values_of
from fastunroll.experiments.pudle.images import Image, centre, images, with_noise
from fastunroll.experiments.pudle.local import local_gradients, train_local
from fastunroll.experiments.pudle.recovery import METHODS, recover
from fastunroll.experiments.pudle.settings import PudleSettings
from fastunroll.experiments.pudle.speed import step_costs
from fastunroll.experiments.store import Store
from fastunroll.io import atomic_write, load_model

Result = dict[str, Any]

_SHOWN_SIDE = 256
"""Side of the middle of an image that is shown, in pixels."""


@dataclass(frozen=True)
class Parts:
    """The experiments of one run, each computed once and kept in ``output / "parts"``.

    Every result has ``"seconds"`` and ``"date"``. Several processes may work on different parts of
    one folder.

    Attributes
    ----------
    output : Path
        Folder of the results, of the models and of the checkpoints of unfinished trainings.
    settings : PudleSettings
    data : Path, optional
        Folder of images, see `fastunroll.data.load_images`.
    progress : bool
        Show a bar for every training.
    say : callable
        Told the name of each part before it is computed.
    """

    output: Path
    settings: PudleSettings
    data: Path | None
    progress: bool
    say: Callable[[str], object]

    @cached_property
    def pictures(self) -> tuple[list[Image], list[Image]]:
        """Training and test images, all that the settings need (ValueError otherwise)."""
        denoising, cscnet = self.settings.denoising, self.settings.cscnet
        side = max(denoising.crop, *(stage.crop for stage in cscnet.stages))
        return images(self.data, side, cscnet.n_held_out + 1)

    @cached_property
    def _checksums(self) -> list[str]:
        return [checksum(found) for found in self.pictures]

    def model(self, name: str) -> Path:
        """Where the model of a part is kept."""
        return self.output / "models" / f"{name}.safetensors"

    def gradients(self) -> Result:
        """Figs. 2, 3, 4a and b."""
        s = self.settings
        return self._part("gradients", s.local, lambda _: local_gradients(s.local, s.seed))

    def training(self, depth: int, gradient: str) -> Result:
        """Fig. 4c and d: one curve."""
        s = self.settings
        return self._part(
            f"trainings-{depth}-{gradient}",
            s.local,
            lambda run: train_local(s.local, gradient, depth, s.seed, run, progress=self.progress),
        )

    def trainings(self) -> dict[str, dict[str, Result]]:
        """Fig. 4c and d, by layers and gradient."""
        return {
            str(depth): {gradient: self.training(depth, gradient) for gradient in GRADIENTS}
            for depth in self.settings.local.depths
        }

    def recovered(self, sparsity: int, method: str) -> Result:
        """Figs. 5 and 6: one curve."""
        s, name = self.settings, f"recovery-{sparsity}-{method}"
        path = self.model(name)
        return self._part(
            name,
            s.recovery,
            lambda _: recover(s.recovery, method, sparsity, s.seed, path, progress=self.progress),
            path,
        )

    def recovery(self) -> dict[str, dict[str, Result]]:
        """Figs. 5 and 6, by sparsity and method."""
        return {
            str(sparsity): {method: self.recovered(sparsity, method) for method in METHODS}
            for sparsity in self.settings.recovery.sparsities
        }

    def speed(self) -> Result:
        """Time and memory of a step of Fig. 5."""
        s = self.settings
        return self._part(
            "speed",
            s.recovery,
            lambda _: step_costs(s.recovery, s.speed_sparsity, s.speed_rounds, s.seed),
            sparsity=s.speed_sparsity,
            rounds=s.speed_rounds,
        )

    def filters(self, kind: str, value: float) -> Result:
        """Table 1: one number."""
        s, name = self.settings, filters_name(kind, value)
        path = self.model(name)
        return self._image_part(
            name,
            s.denoising,
            lambda run: learn_filters(
                s.denoising,
                kind,
                value,
                s.seed,
                *self.pictures,
                path,
                run,
                progress=self.progress,
            ),
            path,
        )

    def denoising(self) -> dict[str, dict[str, Result]]:
        """Table 1, by kind and lambda or threshold."""
        s = self.settings.denoising
        return {
            kind: {f"{value:g}": self.filters(kind, value) for value in values_of(kind, s)}
            for kind in KINDS
        }

    def whole_images(self, kind: str, value: str) -> Result:
        """Scores on whole test images of one of the models of Table 1."""
        s, name = self.settings, filters_name(kind, float(value))
        return self._image_part(
            f"images-{name}",
            s.denoising,
            lambda _: score_images(self.model(name), s.denoising, s.seed, self.pictures[1]),
        )

    def cscnet(self) -> Result:
        """Training of the CSCNet-shaped model, and its scores on whole test images."""
        s, path = self.settings, self.model("cscnet")
        train, test = self.pictures
        trained = self._image_part(
            "cscnet",
            s.cscnet,
            lambda run: train_cscnet(s.cscnet, s.seed, train, path, run, progress=self.progress),
            path,
        )
        scores = self._image_part(
            "images-cscnet",
            s.cscnet,
            lambda _: score_cscnet(path, s.cscnet, s.seed, test),
        )
        return {"training": trained, "scores": scores}

    def denoised(self, models: Mapping[str, str], index: int) -> dict[str, Image]:
        """The middle of a test image: clean, noisy, and denoised by models of given names."""
        s, path = self.settings, self.output / "parts" / "pictures.npz"

        def compute(_: Path) -> Result:
            clean = self.pictures[1][index]
            (noisy,) = with_noise([clean], s.denoising.sigma, s.seed)
            found = {"clean": clean, "noisy": noisy}
            for title, name in models.items():
                model = load_model(self.model(name))
                assert isinstance(model, (CSCNet, ConvolutionalPUDLE))
                found[title] = denoise_by_shifts(model, noisy)
            middles = {title: centre(image, _SHOWN_SIDE) for title, image in found.items()}
            with atomic_write(path) as temporary:
                np.savez_compressed(temporary, list(middles), *middles.values())
            return {}

        self._image_part(
            "pictures",
            s.denoising,
            compute,
            path,
            cscnet=asdict(s.cscnet),
            models=dict(models),
            index=index,
        )
        with np.load(path) as archive:
            titles, *found = archive.values()
            return dict(zip(titles.tolist(), found, strict=True))

    def _image_part(
        self,
        name: str,
        settings: object,
        compute: Callable[[Path], Result],
        *files: Path,
        **more: object,
    ) -> Result:
        return self._part(name, settings, compute, *files, images=self._checksums, **more)

    def _part(
        self,
        name: str,
        settings: Any,
        compute: Callable[[Path], Result],
        *files: Path,
        **more: object,
    ) -> Result:
        """A part, whose ``compute`` is given the folder for its unfinished training."""

        def timed() -> Result:
            self.say(name)
            started = time.monotonic()
            found = compute(store.run(name))
            date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
            return {"seconds": time.monotonic() - started, **found, "date": date}

        key = {**asdict(settings), "seed": self.settings.seed, **more}
        store = Store(self.output / "parts", key)
        return store.part(name, timed, files)


def filters_name(kind: str, value: float) -> str:
    """Name of a part of Table 1."""
    return f"denoising-{kind}-{value:g}".replace(" ", "-")
