"""Which service a logger belongs to."""

from typing import Any

from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lmft.training.services.base import Service
from lmft.training.services.csv_files import CsvFiles
from lmft.training.services.mlflow import MLflow
from lmft.training.services.tensorboard import TensorBoard
from lmft.training.services.trackio import Trackio
from lmft.training.services.weights_and_biases import WeightsAndBiases
from lmft.training.trackio_logger import TrackioLogger

_SERVICES: dict[type, Service] = {
    TensorBoardLogger: TensorBoard(),
    WandbLogger: WeightsAndBiases(),
    MLFlowLogger: MLflow(),
    TrackioLogger: Trackio(),
    CSVLogger: CsvFiles(),
}


def service_of(target: Any) -> Service:
    """Return the service of a logger's class, or the base class."""
    for kind, service in _SERVICES.items():
        if isinstance(target, type) and issubclass(target, kind):
            return service
    return Service()
