"""Partitions made before are vacuumed and analysed as new ones are: `partitions.STORAGE`."""

from django.db import migrations

# An autovacuum that works on one of them gives way; who reads or writes is not held up.
EACH = """
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN
        SELECT inhrelid FROM pg_inherits WHERE inhparent IN (
            'deliveries_event'::regclass, 'deliveries_delivery'::regclass, 'deliveries_attempt'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s {}', part);
    END LOOP;
END
$$;
"""

FORWARDS = EACH.format("RESET (autovacuum_vacuum_cost_delay)") + EACH.format(
    "SET (autovacuum_analyze_scale_factor = 0.5)"
)
BACKWARDS = EACH.format("SET (autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.1)")


class Migration(migrations.Migration):
    dependencies = [
        ("deliveries", "0032_lane_owed_from"),
    ]

    operations = [
        migrations.RunSQL(FORWARDS, BACKWARDS),
    ]
