"""The exceptions a user can meet. Entry points print their one line and exit with code 2."""


class AutoScaleError(Exception):
    """What was wrong (the value), what was expected, what to do next, in one line."""


class ConfigError(AutoScaleError):
    """A configuration file or override cannot be used."""


class CorpusError(AutoScaleError):
    """Input text or token shards are missing, damaged or inconsistent."""


class MixtureError(AutoScaleError):
    """Domain weights, a run table or a law fitted to it cannot be used."""


class ScoreError(AutoScaleError):
    """A table of task scores, or what was fitted to it, cannot be used."""


class CurveError(AutoScaleError):
    """Learning curves cannot be used, or do not hold what was asked of them."""


class StreamError(AutoScaleError):
    """The data order asked for does not exist, for example a domain without a single window."""


class ProposalError(AutoScaleError):
    """A proposed change of weights is refused."""


class CheckpointError(AutoScaleError):
    """A checkpoint is missing, damaged, or does not fit the run that wants it."""


class VersionError(CheckpointError):
    """A checkpoint was written by another version of this program; an older one must not be taken in its place."""


class ReportError(AutoScaleError):
    """What was given holds nothing a report can show, or the page cannot be written."""


class TrainingError(AutoScaleError):
    """Training cannot go on, for example because the loss is not finite."""
