-- The clinical tables of a Synthea export, and the ancestors of its vocabulary, as a small hospital database in SQLite.
-- Dates and times are ISO 8601 text, as Synthea writes them; money and coordinates have NUMERIC affinity.

CREATE TABLE patients (
  "id" TEXT PRIMARY KEY NOT NULL,
  "birthdate" TEXT NOT NULL,
  "deathdate" TEXT,
  "ssn" TEXT NOT NULL,
  "drivers" TEXT,
  "passport" TEXT,
  "prefix" TEXT,
  "first" TEXT NOT NULL,
  "last" TEXT NOT NULL,
  "suffix" TEXT,
  "maiden" TEXT,
  "marital" TEXT,
  "race" TEXT NOT NULL,
  "ethnicity" TEXT NOT NULL,
  "gender" TEXT NOT NULL,
  "birthplace" TEXT NOT NULL,
  "address" TEXT NOT NULL,
  "city" TEXT NOT NULL,
  "state" TEXT NOT NULL,
  "county" TEXT NOT NULL,
  "zip" TEXT,
  "lat" NUMERIC NOT NULL,
  "lon" NUMERIC NOT NULL,
  "healthcare_expenses" NUMERIC NOT NULL,
  "healthcare_coverage" NUMERIC NOT NULL
);

CREATE TABLE organizations (
  "id" TEXT PRIMARY KEY NOT NULL,
  "name" TEXT NOT NULL,
  "address" TEXT NOT NULL,
  "city" TEXT NOT NULL,
  "state" TEXT NOT NULL,
  "zip" TEXT NOT NULL,
  "lat" NUMERIC NOT NULL,
  "lon" NUMERIC NOT NULL,
  "phone" TEXT,
  "revenue" NUMERIC NOT NULL,
  "utilization" INTEGER NOT NULL
);

CREATE TABLE providers (
  "id" TEXT PRIMARY KEY NOT NULL,
  "organization" TEXT NOT NULL REFERENCES organizations,
  "name" TEXT NOT NULL,
  "gender" TEXT NOT NULL,
  "speciality" TEXT NOT NULL,
  "address" TEXT NOT NULL,
  "city" TEXT NOT NULL,
  "state" TEXT NOT NULL,
  "zip" TEXT NOT NULL,
  "lat" NUMERIC NOT NULL,
  "lon" NUMERIC NOT NULL,
  "utilization" INTEGER NOT NULL
);

CREATE TABLE payers (
  "id" TEXT PRIMARY KEY NOT NULL,
  "name" TEXT NOT NULL,
  "address" TEXT,
  "city" TEXT,
  "state_headquartered" TEXT,
  "zip" TEXT,
  "phone" TEXT,
  "amount_covered" NUMERIC NOT NULL,
  "amount_uncovered" NUMERIC NOT NULL,
  "revenue" NUMERIC NOT NULL,
  "covered_encounters" INTEGER NOT NULL,
  "uncovered_encounters" INTEGER NOT NULL,
  "covered_medications" INTEGER NOT NULL,
  "uncovered_medications" INTEGER NOT NULL,
  "covered_procedures" INTEGER NOT NULL,
  "uncovered_procedures" INTEGER NOT NULL,
  "covered_immunizations" INTEGER NOT NULL,
  "uncovered_immunizations" INTEGER NOT NULL,
  "unique_customers" INTEGER NOT NULL,
  "qols_avg" TEXT NOT NULL,
  "member_months" INTEGER NOT NULL
);

CREATE TABLE encounters (
  "id" TEXT PRIMARY KEY NOT NULL,
  "start" TEXT NOT NULL,
  "stop" TEXT NOT NULL,
  "patient" TEXT NOT NULL REFERENCES patients,
  "organization" TEXT NOT NULL REFERENCES organizations,
  "provider" TEXT NOT NULL REFERENCES providers,
  "payer" TEXT NOT NULL REFERENCES payers,
  "encounterclass" TEXT NOT NULL,
  "code" INTEGER NOT NULL,
  "description" TEXT NOT NULL,
  "base_encounter_cost" NUMERIC NOT NULL,
  "total_claim_cost" NUMERIC NOT NULL,
  "payer_coverage" NUMERIC NOT NULL,
  "reasoncode" INTEGER,
  "reasondescription" TEXT
);

CREATE TABLE claims (
  "id" TEXT PRIMARY KEY NOT NULL,
  "patientid" TEXT NOT NULL REFERENCES patients,
  "providerid" TEXT NOT NULL REFERENCES providers,
  "primarypatientinsuranceid" TEXT NOT NULL,
  "secondarypatientinsuranceid" TEXT NOT NULL,
  "departmentid" INTEGER NOT NULL,
  "patientdepartmentid" INTEGER NOT NULL,
  "diagnosis1" INTEGER NOT NULL,
  "diagnosis2" INTEGER,
  "diagnosis3" INTEGER,
  "diagnosis4" INTEGER,
  "diagnosis5" INTEGER,
  "diagnosis6" INTEGER,
  "diagnosis7" INTEGER,
  "diagnosis8" INTEGER,
  "referringproviderid" TEXT,
  "appointmentid" TEXT NOT NULL REFERENCES encounters,
  "currentillnessdate" TEXT NOT NULL,
  "servicedate" TEXT NOT NULL,
  "supervisingproviderid" TEXT NOT NULL,
  "status1" TEXT NOT NULL,
  "status2" TEXT,
  "statusp" TEXT NOT NULL,
  "outstanding1" NUMERIC NOT NULL,
  "outstanding2" NUMERIC,
  "outstandingp" NUMERIC NOT NULL,
  "lastbilleddate1" TEXT NOT NULL,
  "lastbilleddate2" TEXT,
  "lastbilleddatep" TEXT NOT NULL,
  "healthcareclaimtypeid1" INTEGER NOT NULL,
  "healthcareclaimtypeid2" INTEGER NOT NULL
);

CREATE TABLE claims_transactions (
  "id" TEXT PRIMARY KEY NOT NULL,
  "claimid" TEXT NOT NULL REFERENCES claims,
  "chargeid" INTEGER NOT NULL,
  "patientid" TEXT NOT NULL REFERENCES patients,
  "type" TEXT NOT NULL,
  "amount" NUMERIC,
  "method" TEXT,
  "fromdate" TEXT NOT NULL,
  "todate" TEXT NOT NULL,
  "placeofservice" TEXT NOT NULL REFERENCES organizations,
  "procedurecode" TEXT NOT NULL,
  "modifier1" TEXT,
  "modifier2" TEXT,
  "diagnosisref1" INTEGER NOT NULL,
  "diagnosisref2" INTEGER,
  "diagnosisref3" INTEGER,
  "diagnosisref4" INTEGER,
  "units" INTEGER NOT NULL,
  "departmentid" INTEGER NOT NULL,
  "notes" TEXT NOT NULL,
  "unitamount" NUMERIC,
  "transferoutid" INTEGER,
  "transfertype" TEXT,
  "payments" NUMERIC,
  "adjustments" NUMERIC,
  "transfers" NUMERIC,
  "outstanding" NUMERIC,
  "appointmentid" TEXT NOT NULL REFERENCES encounters,
  "linenote" TEXT,
  "patientinsuranceid" TEXT,
  "feescheduleid" INTEGER NOT NULL,
  "providerid" TEXT NOT NULL REFERENCES providers,
  "supervisingproviderid" TEXT NOT NULL
);

CREATE TABLE conditions (
  "start" TEXT NOT NULL,
  "stop" TEXT,
  "patient" TEXT NOT NULL REFERENCES patients,
  "encounter" TEXT NOT NULL REFERENCES encounters,
  "code" INTEGER NOT NULL,
  "description" TEXT NOT NULL
) STRICT;

CREATE TABLE medications (
  "start" TEXT NOT NULL,
  "stop" TEXT,
  "patient" TEXT NOT NULL REFERENCES patients,
  "payer" TEXT NOT NULL REFERENCES payers,
  "encounter" TEXT NOT NULL REFERENCES encounters,
  "code" INTEGER NOT NULL,
  "description" TEXT NOT NULL,
  "base_cost" NUMERIC NOT NULL,
  "payer_coverage" NUMERIC NOT NULL,
  "dispenses" INTEGER NOT NULL,
  "totalcost" NUMERIC NOT NULL,
  "reasoncode" INTEGER,
  "reasondescription" TEXT
);

CREATE TABLE observations (
  "date" TEXT NOT NULL,
  "patient" TEXT NOT NULL REFERENCES patients,
  "encounter" TEXT REFERENCES encounters,
  "category" TEXT,
  "code" TEXT NOT NULL,
  "description" TEXT NOT NULL,
  "value" TEXT NOT NULL,
  "units" TEXT,
  "type" TEXT NOT NULL
);

CREATE TABLE procedures (
  "start" TEXT NOT NULL,
  "stop" TEXT NOT NULL,
  "patient" TEXT NOT NULL REFERENCES patients,
  "encounter" TEXT NOT NULL REFERENCES encounters,
  "code" INTEGER NOT NULL,
  "description" TEXT NOT NULL,
  "base_cost" NUMERIC NOT NULL,
  "reasoncode" INTEGER,
  "reasondescription" TEXT
);

CREATE TABLE concept_ancestor (
  "ancestor_concept_id" INTEGER NOT NULL,
  "descendant_concept_id" INTEGER NOT NULL,
  "min_levels_of_separation" INTEGER NOT NULL CHECK (min_levels_of_separation >= 0),
  "max_levels_of_separation" INTEGER NOT NULL,
  PRIMARY KEY (ancestor_concept_id, descendant_concept_id)
) WITHOUT ROWID;

-- Filled by the triggers below alone: a copy whose load fired them would hold every entry twice.
CREATE TABLE journal (
  "entry" INTEGER PRIMARY KEY AUTOINCREMENT,
  "what" TEXT NOT NULL,
  "encounter" TEXT NOT NULL REFERENCES encounters
);

CREATE TRIGGER encounter_added AFTER INSERT ON encounters
BEGIN
  INSERT INTO journal (what, encounter) VALUES ('added ' || NEW.encounterclass, NEW.id);
END;

CREATE TRIGGER encounter_is_kept BEFORE DELETE ON encounters
BEGIN
  SELECT RAISE(ABORT, 'encounters are never deleted');
END;

CREATE INDEX encounters_by_patient ON encounters (patient, start);
CREATE INDEX observations_by_patient ON observations (patient, date);
CREATE INDEX observations_by_code ON observations (code) WHERE units IS NOT NULL;
CREATE INDEX patients_by_name ON patients (lower(last), lower(first));
CREATE UNIQUE INDEX patients_by_ssn ON patients (ssn);
CREATE INDEX descendants ON concept_ancestor (descendant_concept_id);

CREATE VIEW patient_summary AS
SELECT p.id, p.last, p.first, p.birthdate, count(e.id) AS encounters, max(e.start) AS last_seen
FROM patients AS p LEFT JOIN encounters AS e ON e.patient = p.id
GROUP BY p.id;
