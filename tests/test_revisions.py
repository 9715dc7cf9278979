from alembic.script import ScriptDirectory

from callflow_service.storage.migrating import alembic_config
from callflow_service.storage.revisions import known_revisions


def test_the_known_revisions_are_those_of_alembic_in_its_order() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert list(known_revisions()) == [script.revision for script in scripts.walk_revisions()][::-1]
    assert known_revisions()[-1] == scripts.get_current_head()
